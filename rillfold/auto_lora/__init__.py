"""Adapters from descriptions of tools alone: data that is missing is made, and a loop improves itself."""

from processors.synthetic.definition import ToolDefinition
from rillfold.auto_lora.config import TrainingConfig
from rillfold.auto_lora.creator import AutoLoRACreator
from rillfold.auto_lora.dependencies import DependencyChecker
from rillfold.auto_lora.evaluator import ToolCallEvaluator
from rillfold.auto_lora.gguf_files import GgufFiles
from rillfold.auto_lora.made import SyntheticDataGenerator, ToolCallingDataset
from rillfold.auto_lora.trainer import LoRATrainer
from rillfold.llama_cpp import LlamaCppClient

__all__ = [
    "AutoLoRACreator",
    "DependencyChecker",
    "GgufFiles",
    "LlamaCppClient",
    "LoRATrainer",
    "SyntheticDataGenerator",
    "ToolCallEvaluator",
    "ToolCallingDataset",
    "ToolDefinition",
    "TrainingConfig",
]
