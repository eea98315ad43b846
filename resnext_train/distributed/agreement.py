"""What the ranks tell each other before they work together, and what must be the same on all of them.

Imports no torch.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from resnext_train.distributed.process_identity import ProcessIdentity, this_process
from resnext_train.distributed.usable_cores import CoreShare, own_cores, share_of_cores
from resnext_train.errors import InputError

_FACTS = "resnext_train/facts"
"""Key of the store, before the rank."""

_SEEN = "resnext_train/facts_seen"
"""Key of the store, before the rank, for which facts it has read."""

_READ = "resnext_train/facts_read"
"""Key of the store, before a rank that has all facts."""

_OLD = 900.0
"""Seconds to wait for the others, where the store holds facts of an earlier start."""

_LAST_READER = 10.0
"""Seconds that rank 0 waits for the others to read them, before it ends, and the store with it."""


@dataclass(frozen=True)
class RankFacts:
    """A rank's process, its cores, and what must be as on the other ranks."""

    host: str
    """Its name, for messages."""
    process: ProcessIdentity = field(default_factory=this_process)
    cores: Sequence[int] = field(default_factory=lambda: sorted(own_cores()))
    software: Mapping[str, str] = field(default_factory=dict)
    """Device and versions, each with how a sentence goes on after `process 3`: {"found": "no GPU"}."""
    gpu: str = ""
    """Tells its GPU from others; empty on a CPU."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Tells this start of the rank from others."""


def exchange_facts(store: Any, rank: int, world_size: int, facts: RankFacts) -> None:
    """Compare the facts of all ranks, through the launcher's store.

    Raises:
        InputError: they differ in what must be the same, and may not run together; or a rank did not come.
    """
    found = _all_facts(store, rank, world_size, facts)
    store.set(f"{_READ}/{rank}", facts.token)
    hosts = [facts.host for facts in found]
    kinds = dict.fromkeys(kind for facts in found for kind in facts.software)
    sentences = [
        text for kind in kinds if (text := disagreement(kind, [f.software.get(kind) for f in found], hosts)) is not None
    ]
    if sentences := [*sentences, *_shared_gpus(found)]:
        deadline = time.monotonic() + _LAST_READER
        while rank == 0 and time.monotonic() < deadline:
            if all(_read(store, f"{_READ}/{other}") == f.token for other, f in enumerate(found)):
                break
            time.sleep(0.05)
        raise InputError(f"{'; '.join(sentences)}; the processes of a run need the same devices and versions")


def _all_facts(store: Any, rank: int, world_size: int, facts: RankFacts) -> list[RankFacts]:
    """Return the facts of all ranks of this start.

    A launcher that starts ranks again keeps the store, in which a start that was broken off has left facts. A rank is
    of this start if it has read this rank's facts, which are new.
    """
    store.set(f"{_FACTS}/{rank}", json.dumps(asdict(facts)))
    found: dict[int, RankFacts] = {rank: facts}
    deadline = time.monotonic() + _OLD
    while True:
        held = [facts if other == rank else _facts_of(store, other, world_size) for other in range(world_size)]
        store.set(f"{_SEEN}/{rank}", json.dumps([one.token for one in held]))
        for other, one in enumerate(held):
            seen = json.loads(_read(store, f"{_SEEN}/{other}") or "[]")
            if len(seen) == world_size and (seen[rank], seen[other]) == (facts.token, one.token):
                found[other] = one
        if len(found) == world_size:
            return [found[other] for other in range(world_size)]
        if time.monotonic() > deadline:
            gone = _listed([str(other) for other in range(world_size) if other not in found])
            raise InputError(f"of {world_size} processes (counted from 0), {gone} did not come; start all processes")
        time.sleep(0.05)


def _facts_of(store: Any, other: int, world_size: int) -> RankFacts:
    try:
        content = json.loads(store.get(f"{_FACTS}/{other}"))
    except RuntimeError as error:
        raise InputError(
            f"process {other} of {world_size} (counted from 0) has not come, or the connection is gone "
            f"({str(error).partition(chr(10))[0][:150]}); start all processes, and see what the others said"
        ) from error
    return RankFacts(**{**content, "process": ProcessIdentity(**content["process"])})


def _read(store: Any, key: str) -> str | None:
    return store.get(key).decode() if store.check([key]) else None


def forget_facts(store: Any, rank: int) -> None:
    """Remove this rank's facts, once all have read them."""
    for key in (_FACTS, _SEEN, _READ):
        store.delete_key(f"{key}/{rank}")


def cores_of_rank(found: Sequence[RankFacts], rank: int) -> CoreShare:
    """Return the share of its host's cores that a rank may count on."""
    host = found[rank].process.host
    local = [r for r, facts in enumerate(found) if facts.process.host == host]
    return share_of_cores([found[r].cores for r in local], local.index(rank))


def check_agreement(verb: str, values: Sequence[str], hosts: Sequence[str], remedy: str) -> None:
    """Check that all ranks have the same value.

    Raises:
        InputError: they do not; names the ranks that differ from most.
    """
    if text := disagreement(verb, values, hosts):
        raise InputError(f"{text}: {remedy}")


def disagreement(verb: str, values: Sequence[str | None], hosts: Sequence[str]) -> str | None:
    """Return which ranks differ from most, as "process 3 of 8 (host b) found no GPU, the others a GPU".

    `verb` is what stands before a value. None is no value, and differs from none. Where no value has a majority, that
    of the lowest rank counts as it. None if all are equal.
    """
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return None
    (common, number), *others = Counter(known).most_common()
    parts: list[str] = []
    for odd, _ in others:
        ranks = [rank for rank, value in enumerate(values) if value == odd]
        names = f"{'process' if len(ranks) == 1 else 'processes'} {_listed(list(map(str, ranks)))}"
        on = list(dict.fromkeys(hosts[rank] for rank in ranks))
        first = f" of {len(values)}" if not parts else ""
        parts.append(f"{names}{first} ({'host' if len(on) == 1 else 'hosts'} {_listed(on)}) {verb} {odd}")
    return f"{', '.join(parts)}, the other{'' if number == 1 else 's'} {common}"


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _shared_gpus(found: Sequence[RankFacts]) -> list[str]:
    """Return a sentence for each GPU that several ranks have taken, as where a scheduler shows all of them the same."""
    users: dict[tuple[str, str], list[str]] = {}
    for rank, facts in enumerate(found):
        if facts.gpu:
            users.setdefault((facts.host, facts.gpu), []).append(str(rank))
    return [
        f"processes {_listed(ranks)} of {len(found)} (host {host}) found the same GPU"
        for (host, _), ranks in users.items()
        if len(ranks) > 1
    ]
