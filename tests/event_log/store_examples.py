"""`python -m tests.event_log.store_examples`: adds an example of each new event to the golden file, changes none."""

import json
import types
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from domain.catalogue import EVENTS
from infra.event_mapper import EventMapper

GOLDEN = Path(__file__).parent / "stored_events.json"

_ID = UUID("44444444-4444-4444-8444-444444444444")
_BLOCK = {"from": "00:00", "to": "24:00", "pBatMin": -5.0, "pBatMax": 5.0, "socMin": 10.0, "socMax": 90.0}
_BY_NAME: dict[str, Any] = {
    "originator_id": _ID,
    "timestamp": datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC),
    "scopes": ["trading:connect"],
    "time_configs": [_BLOCK],
    "payload": {"type": "POWER", "targetValueKw": 12.5, "note": "čtyři"},
}
_BY_TYPE: dict[Any, Any] = {
    datetime: datetime(2026, 3, 29, 1, 45, tzinfo=UTC),
    UUID: _ID,
    bool: True,
    int: 3,
    float: 12.5,
}


def main() -> None:
    golden: dict[str, str] = json.loads(GOLDEN.read_text())
    for topic in sorted(set(EVENTS) - set(golden)):
        golden[topic] = EventMapper().to_stored_event(_example(topic)).state.decode()
    GOLDEN.write_text(json.dumps(golden, indent=2, ensure_ascii=False) + "\n")


def _example(topic: str) -> Any:
    event_class = EVENTS[topic]
    hints = get_type_hints(event_class)
    values = {field.name: _value(field.name, hints[field.name]) for field in fields(event_class)}
    if "originator_topic" in values:
        values["originator_topic"] = topic.split(":", maxsplit=1)[0]
    return event_class(**values)


def _value(name: str, kind: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if name in _BY_NAME:
        return _BY_NAME[name]
    if origin in {Union, types.UnionType}:
        return _value(name, next(each for each in arguments if each is not type(None)))
    if origin is Literal:
        return arguments[0]
    if origin in {list, tuple}:
        return [_value(name, arguments[0])]
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{field.name: _value(field.name, hints[field.name]) for field in fields(kind)})
    return _BY_TYPE.get(kind, name.replace("_", "-"))


if __name__ == "__main__":
    main()
