"""LoRA: low-rank adaptation of linear layers, of all but the head. Hu et al., 2021, https://arxiv.org/abs/2106.09685."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import nn

from bench.errors import LetheError
from bench.model_card import Saved, base_name
from bench.models import decoder_blocks
from methods.base import Adapter, Attached, seeded

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, kw_only=True)
class LoRA(Adapter):
    """peft's LoRA with the settings of the LoRA baselines in GRUN's comparison (fact sheet section 2.2).

    Deviates: no dropout (theirs is 0.05), because a loss must not depend on how a batch is cut.
    """

    lr: float = 1e-4
    epochs: int = 10
    batch_size: int = 32
    warmup_epochs: float = 1.0
    weight_decay: float = 0.01
    r: int = 4
    """Rank of the update of each layer."""
    alpha: int = 32
    """The update is scaled by alpha / r."""
    modules: Literal["all", "query_value"] = "all"
    """Which linear layers of the blocks get an update. query_value: the projections to queries and to values (Hu et
    al., section 5.1; RWKU and ORT); where an architecture keeps these in one matrix with the keys, that matrix."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.r < 1:
            raise ValueError(f"r must be at least 1, got {self.r}")
        if self.alpha < 1:
            raise ValueError(f"alpha must be at least 1, got {self.alpha}; with 0 the update would count for nothing")

    def attach(self, model: nn.Module, seed: int) -> "LoRALayers":
        return LoRALayers(model, self, seed)


QUERY_VALUE = ("q_proj", "v_proj")
"""What Llama, Mistral, Qwen, Gemma, Phi, OPT and GPT-J call them."""
FUSED = ("qkv_proj", "query_key_value", "c_attn", "Wqkv")
"""One matrix for queries, keys and values: Phi-3; GPT-NeoX, Falcon and BLOOM; GPT-2; MPT."""


def query_value(model: nn.Module) -> list[str]:
    """What the blocks of a model call the layers that give queries and values.

    Raises:
        LetheError: they have none under a known name.
    """
    names = {name.rpartition(".")[2] for name, _ in decoder_blocks(model).named_modules()}
    if names.issuperset(QUERY_VALUE):
        return list(QUERY_VALUE)
    for name in FUSED:
        if name in names:
            return [name]
    raise LetheError(
        f"{type(model).__name__} has no query and value layers under a known name ({', '.join(QUERY_VALUE)}, or one of "
        f"{', '.join(FUSED)}); set modules=all"
    )


class LoRALayers(Attached):
    """peft's layers inside the model; the model object itself stays the one that others hold."""

    def __init__(self, model: nn.Module, config: LoRA, seed: int) -> None:
        from peft import LoraConfig, get_peft_model

        self._model, self._rank = model, config.r
        settings = LoraConfig(
            r=config.r,
            lora_alpha=config.alpha,
            lora_dropout=0.0,
            target_modules="all-linear" if config.modules == "all" else query_value(model),
            task_type="CAUSAL_LM",
        )
        with seeded(seed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)  # peft then sets it right
            warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
            self._peft: PeftModel = get_peft_model(model, settings, autocast_adapter_dtype=True)  # type: ignore[arg-type]
        for p in self.trainable().values():
            p.data = p.data.float()

    def trainable(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self._model.named_parameters() if ".lora_" in n}

    @contextmanager
    def off(self) -> Iterator[None]:
        with self._peft.disable_adapter():
            yield

    def detach(self) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        if any(isinstance(m, BaseTunerLayer) for m in self._model.modules()):
            self._peft.unload()
        self._model.requires_grad_(False)

    def save(self, folder: Path) -> Saved:
        settings = self._peft.peft_config["default"]
        settings.base_model_name_or_path = base_name(settings.base_model_name_or_path)  # no record tells where it lies
        self._peft.save_pretrained(str(folder), save_embedding_layers=False)  # "auto" would ask the hub
        return saved_for_peft(f"a LoRA adapter of rank {self._rank}")


def saved_for_peft(what: str, *notes: str) -> Saved:
    """An adapter that peft loads onto the model before."""
    load = ("from peft import PeftModel", "model = PeftModel.from_pretrained(base, FOLDER)")
    return Saved(library="peft", what=what, load=load, notes=notes)
