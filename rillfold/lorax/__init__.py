"""Many agents on one model: a role each, an adapter a role, one engine in this process."""

from rillfold.lorax.config import LoRAxConfig, MLConfig
from rillfold.lorax.pipeline import MLPipelineManager
from rillfold.lorax.roles import AdapterInfo, LoRAxAdapterRegistry
from rillfold.lorax.server import LoRAxServer

__all__ = ["AdapterInfo", "LoRAxAdapterRegistry", "LoRAxConfig", "LoRAxServer", "MLConfig", "MLPipelineManager"]
