"""All read models, in the order in which `wattledger projections status` lists them."""

from typing import Any

from projections.api_keys import API_KEYS
from projections.audit_log import AUDIT_LOG
from projections.command_log import COMMAND_LOG
from projections.config_log import CONFIG_LOG
from projections.organisations import ORGANISATIONS
from projections.plants import PLANTS
from projections.read_model import ReadModel
from projections.trading_configs import TRADING_CONFIGS

FOLDED: tuple[ReadModel[Any], ...] = (
    ORGANISATIONS,
    API_KEYS,
    TRADING_CONFIGS,
    PLANTS,
    CONFIG_LOG,
    COMMAND_LOG,
)
"""What our code folds from events, so that a change of it calls for a rebuild."""

READ_MODELS: tuple[ReadModel[Any], ...] = (*FOLDED, AUDIT_LOG)
