"""What an ESM's answers must look like: strict about what we use, indifferent to fields that we don't know."""

from collections.abc import Iterable
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from application.ports import EsmAnswer, EsmPlant, EsmPlantConfig, EsmPlantList
from domain.day_plan import TimeBlock

MAX_TEXT = 500
MAX_PLANTS = 10_000


class Malformed(Exception):
    """An answer that is not what its API promises."""


def _clean(text: str) -> str:
    """Text that is safe to store and show: no control characters (PostgreSQL refuses NUL), and not endless."""
    return "".join(character if character.isprintable() else " " for character in text)[:MAX_TEXT].strip()


def _is_id(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("not an id")
    return text


Text = Annotated[str, AfterValidator(_clean)]
Name = Annotated[Text, AfterValidator(lambda name: name or _refuse("empty"))]
Id = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_is_id)]
Amount = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Model = TypeVar("Model", bound="Answer")


class Answer(BaseModel):
    """One answer of the ESM."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    @classmethod
    def read(cls, body: bytes) -> Self:
        """The answer in a JSON body; raises Malformed, which quotes nothing of it."""
        try:
            return cls.model_validate(from_json(body, allow_inf_nan=False))
        except ValueError:
            raise Malformed from None


class TokenAnswer(Answer):
    """An OAuth token (RFC 6749, 5.1); `expires_in` in seconds."""

    model_config = ConfigDict(alias_generator=None)

    # Visible ASCII only: h11 quotes a header value that it refuses, and that would be the token.
    access_token: str = Field(pattern=r"^[\x21-\x7e]{1,8192}\z", repr=False)
    token_type: str = Field(default="bearer", pattern=r"^[Bb][Ee][Aa][Rr][Ee][Rr]\z")
    expires_in: float = Field(default=300, ge=0, le=10**9, allow_inf_nan=False)


class PlantAnswer(Answer):
    """One plant of the list: kWh, kWp."""

    plant_id: Id
    name: Name
    description: Text | None = None
    capacity_kwh: Amount | None = None
    fve_peak_power_kwp: Amount | None = None
    plant_with_load: bool | None = None
    config_enabled: bool | None = None
    esi_state: Text | None = None

    def as_plant(self) -> EsmPlant:
        return EsmPlant(**self.model_dump())


class PlantListAnswer(Answer):
    """The list, its plants not yet looked at: one bad plant must not hide the others."""

    plants: list[Any] = Field(max_length=MAX_PLANTS)

    def as_list(self) -> EsmPlantList:
        """The plants that can be read, the first of each id, and one sentence for each other entry."""
        plants: dict[str, EsmPlant] = {}
        errors, unread = [], set()
        for number, entry in enumerate(self.plants, start=1):
            try:
                plant = PlantAnswer.model_validate(entry).as_plant()
            except ValidationError as problem:
                errors.append(f"Plant {number} of the list is malformed: {_fields(problem)}")
                unread |= _id_of(entry)
                continue
            if plants.setdefault(plant.plant_id, plant) is not plant:
                errors.append(f"Plant {number} of the list repeats the id of an earlier one")
        return EsmPlantList(tuple(plants.values()), tuple(errors), frozenset(unread - plants.keys()))


class BlockAnswer(Answer):
    """One time block, as the partner has it; held to our own rules for a single block."""

    from_: str = Field(alias="from")
    to: str
    p_bat_min: float
    p_bat_max: float
    soc_min: float
    soc_max: float

    def as_block(self) -> TimeBlock:
        return TimeBlock.model_validate(self.model_dump())


class PlantConfigAnswer(Answer):
    """A plant's configuration."""

    plant_id: Id
    version: int = Field(ge=0, le=2**53)
    config_enabled: bool
    esi_state: Text | None = None
    time_configs: list[BlockAnswer] = Field(max_length=1000)

    def as_config(self) -> EsmPlantConfig:
        """Raises Malformed for a block that no plan can have."""
        try:
            blocks = tuple(block.as_block() for block in self.time_configs)
        except ValidationError:
            raise Malformed from None
        return EsmPlantConfig(self.plant_id, self.version, self.config_enabled, self.esi_state, blocks)


class ChangeAnswer(Answer):
    """What the ESM says of a config change."""

    request_code: Id | None = None
    result_code: Text | None = None
    message: Text | None = None
    is_error: bool
    is_terminal: bool

    def as_answer(self) -> EsmAnswer:
        """Raises Malformed when more is to come but nothing says where to ask for it."""
        if not self.is_terminal and self.request_code is None:
            raise Malformed
        return EsmAnswer(**self.model_dump())


def _id_of(entry: Any) -> set[str]:
    """Of a malformed plant, if that much can be read."""
    plant_id = entry.get("plantId") if isinstance(entry, dict) else None
    return {plant_id} if isinstance(plant_id, str) else set()


def _fields(problem: ValidationError) -> str:
    """The names of the fields that are wrong; they are ours, so nothing of the entry is quoted."""
    places: Iterable[str] = (str(error["loc"][0]) for error in problem.errors() if error["loc"])
    return ", ".join(dict.fromkeys(places)) or "it is no object"


def _refuse(why: str) -> str:
    raise ValueError(why)
