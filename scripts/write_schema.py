#!/usr/bin/env python3
"""Write configs/recipe.schema.json, by which editors check and complete recipes, from the recipe's own types."""

from __future__ import annotations

import json
from pathlib import Path

from resnext_train.config import recipe_schema

TARGET = Path(__file__).parent.parent / "configs" / "recipe.schema.json"

if __name__ == "__main__":
    TARGET.write_text(json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
