"""Published settings by name: preset -> label of a method -> fields that differ from the method's defaults."""

from collections.abc import Mapping
from typing import Any

CORPUS_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "grun_*": {"epochs": 4, "gate_weight": 100.0, "gate": "mlp_3"},
    "grun_npo": {"forget_weight": 100.0},
}
"""Label or pattern -> what GRUN's authors use on WMDP instead of their fields for TOFU (their cmd_wmdp.sh; fact sheet
1.2 and 1.5), later lines over earlier ones. Their TOFU runs have 40 epochs, a gate weight of 10 and, in one of two
mislabelled commands, a linear gate."""

_OPENUNLEARNING = {"steering_coeff": 2.0, "retain_weight": 1.0, "layer": 7, "positions": "labels", "alternate": False}
_WMDP = {"lr": 5e-5, "batch_size": 4, "epochs": 1, "schedule": "constant"}

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    # open-unlearning, configs/trainer/RMU.yaml over finetune.yaml and the TOFU experiments: all weights, the module
    # matching layers.7, the loss over label positions, batches of 8 four times, one warm-up epoch, linear decay.
    # Deviates, here and in the next: theirs takes the mean of a sequence first (in a batch of several, the mean of the
    # sums times the mean of 1 / length, for want of a dimension), so that sequences weigh alike; here positions do.
    "openunlearning": {
        "rmu": {
            **_OPENUNLEARNING,
            "parameters": "all",
            "lr": 1e-5,
            "epochs": 10,
            "batch_size": 32,
            "warmup_epochs": 1.0,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
            "max_steps": None,
            "schedule": "linear",
        }
    },
    # open-unlearning's WMDP experiment: down_proj of layers 5-7, one row sixteen times, 80 steps, constant rate.
    "openunlearning-wmdp": {
        "rmu": {
            **_OPENUNLEARNING,
            "parameters": "mlp_out",
            "layers": (5, 6, 7),
            **_WMDP,
            "batch_size": 16,
            "clip_norm": 1.0,
            "max_steps": 80,
        }
    },
    # The released Zephyr-7B of Li et al.: their command line with these values (issue 15 of centerforaisafety/wmdp).
    "wmdp-zephyr": {
        "rmu": {
            "steering_coeff": 6.5,
            "retain_weight": 1200.0,
            "layer": 7,
            "layers": (5, 6, 7),
            **_WMDP,
            "max_steps": 150,
        }
    },
    # GRUN's RMU baselines, their README and cmd_wmdp.sh (fact sheet 2.3): Llama-3.1-8B and Mistral-7B-v0.1.
    "grun-llama3": {
        "rmu": {
            "steering_coeff": 30.0,
            "retain_weight": 350.0,
            "layer": 15,
            "layers": (13, 14, 15),
            **_WMDP,
            "max_steps": 150,
        }
    },
    "grun-mistral": {
        "rmu": {
            "steering_coeff": 27.0,
            "retain_weight": 1600.0,
            "layer": 15,
            "layers": (13, 14, 15),
            **_WMDP,
            "max_steps": 150,
        }
    },
    # GRUN-RMU as its code has it, two faults included (fact sheet 1.4 and 5.2, points 3 and 4). It reads
    # hidden_states[31] of 32, the output of the block before the last, so the last edit is never trained, and leaves
    # the edited token out.
    "grun-published": {"grun_rmu": {"layer": -2, "positions": "labels"}},
    # The same with its other retain loss, the KL summed over every position: gated_rmu_kl and gated_npo_kl.
    "grun-published-kl": {
        "grun_rmu": {"layer": -2, "positions": "labels", "retain_loss": "kl_padded"},
        "grun_npo": {"retain_loss": "kl_padded"},
    },
}
