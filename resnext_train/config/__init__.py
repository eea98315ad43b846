"""The recipe: all settings of a run, typed, validated and frozen. Imports no torch."""

from resnext_train.config.augment_sections import (
    AreaAugment,
    AugmentSection,
    AutoAugmentSection,
    EraseSection,
    MixSection,
    NoAutoAugment,
    PadAugment,
    RandAugment,
    ScaleAugment,
    TimmRandAugment,
    TrivialAugmentWide,
)
from resnext_train.config.data_sections import DataSection, EvalSection, FolderData, SyntheticData
from resnext_train.config.fidelity.code_points import RunFacts
from resnext_train.config.fidelity.compare import Deviation, deviations, reference_of
from resnext_train.config.fidelity.describe import counted as counted_deviations
from resnext_train.config.fidelity.describe import deviation_lines
from resnext_train.config.fidelity.describe import sentence as deviation_sentence
from resnext_train.config.log_section import LogSection
from resnext_train.config.optimizer_sections import (
    AdamwSection,
    CosineSchedule,
    ExponentialSchedule,
    LambSection,
    LinearSchedule,
    OptimizerSection,
    PlateauSchedule,
    RmspropSection,
    ScheduleSection,
    SgdSection,
    StepSchedule,
)
from resnext_train.config.process_count import check_micro_batches
from resnext_train.config.recipe import CheckpointSection, ModelSection, Recipe
from resnext_train.config.recipe_catalogue import Entry, catalogue, defining_values, find_entry, natural_key, read_entry
from resnext_train.config.recipe_files import find_recipe, nearest_names, run_name, shipped_names, shipped_recipes
from resnext_train.config.recipe_keys import all_keys, keys_meant, keys_named, suggested
from resnext_train.config.recipe_loader import (
    LoadedRecipe,
    as_continued,
    differences,
    flattened,
    load_recipe,
    load_recipe_with_notes,
    load_stored_recipe,
    loaded_recipe,
    recipe_from_dict,
    recipe_from_dict_with_notes,
    recipe_schema,
)
from resnext_train.config.run_names import RUNS, default_name, is_run_name, name_part
from resnext_train.config.train_sections import EmaSection, TrainSection
from resnext_train.config.value_types import duration_in_steps
from resnext_train.config.yaml_reader import read_yaml
