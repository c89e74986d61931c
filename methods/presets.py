"""Published settings by name: preset -> label of a method -> fields that differ from the method's defaults."""

from collections.abc import Mapping
from typing import Any

CORPUS_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "grun_*": {"epochs": 4, "gate_weight": 100.0, "gate": "mlp_3"},
    "grun_npo": {"forget_weight": 100.0},
}
"""Label or pattern -> what GRUN's authors use on WMDP instead of their fields for TOFU (their cmd_wmdp.sh; fact sheet
1.2 and 1.5), later lines over earlier ones; on ORT too, where a method trains on texts. Their TOFU runs have 40
epochs, a gate weight of 10 and, in one of two mislabelled commands, a linear gate."""

_RWKU = {"epochs": 3, "schedule": "cosine", "warmup_steps": 20, "weight_decay": 0.0, "retain_weight": 0.0}
_ORT = {**_RWKU, "epochs": 5, "r": 8, "alpha": 16, "modules": "query_value"}
_RWKU_LORA = {**_ORT, "epochs": 3}
_BIOGRAPHIES = {"max_tokens": (1024,)}
"""Theirs are never cut: at most 512 sampled tokens behind the words they begin with."""
_TRL = {"beta": 0.1, "forget_weight": 0.05}
"""TRL's DPO is -log sigmoid(beta ...), ours 2 / beta times that: a weight of beta / 2 takes the factor out."""
_ROCR = {"contexts": "published", "v_steps": 25, "l2": 1.0}
_ROCR_SEARCH = {**_ROCR, "mode": "reject", "clamp_norm_factor": 0.75, "kl_factor": 0.0625}
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
    # ORT's baselines for Llama-3-8B-Instruct and Mistral-7B-Instruct-v0.3: expr_config/*_config.py of Acruxos/ORT (fact
    # sheet 3.1), AdamW and clipping of transformers' Trainer. The batch is theirs times the accumulated ones. DPO is
    # dpo_lora_reject; dpo_lora (Mistral only) has prefer=fabricated and lr=2e-4.
    # ROCR's other constants are its defaults.
    # Deviates: their texts begin without BOS, and what is left of an epoch after the last full batch is not trained on.
    "ort": {
        "lora_ga": {**_ORT, **_BIOGRAPHIES, "lr": 2e-5, "batch_size": 16},
        "lora_npo": {**_ORT, **_BIOGRAPHIES, "lr": 5e-5, "batch_size": 16, "beta": 0.0275},
        "lora_rt": {**_ORT, "lr": 5e-5, "batch_size": 8},
        "lora_dpo": {**_ORT, **_TRL, "lr": 1e-4, "batch_size": 8, "prefer": "refusal"},
        "rocr": {"contexts": "published"},
    },
    "ort-mistral": {
        "lora_ga": {**_ORT, **_BIOGRAPHIES, "lr": 1.25e-5, "batch_size": 16},
        "lora_npo": {**_ORT, **_BIOGRAPHIES, "lr": 5e-5, "batch_size": 16, "beta": 0.02},
        "lora_rt": {**_ORT, "lr": 4e-5, "batch_size": 16},
        "lora_dpo": {**_ORT, **_TRL, "lr": 1.5e-4, "batch_size": 8, "prefer": "refusal"},
        "rocr": {"contexts": "published"},
    },
    # ROCR on other models: the files of train/rocr/rocr_hparams of Acruxos/ORT by name (fact sheet 2.4), their other
    # constants its defaults. No file names another loss layer than the model's last block; edited is what writes an
    # MLP's output, whatever it is called there. Their code cannot run two of them: it takes the file of phi-1.5 for
    # Phi-3, and its shapes for GPT-2 are wrong (2.6).
    # qwen2.5-7b-instruct
    "ort-qwen": {
        "rocr": {
            **_ROCR,
            "mode": "unrelated",
            "layers": (4, 5, 6, 7, 8),
            "clamp_norm_factor": 1.0,
            "v_lr": 0.1,
            "v_loss_layer": 27,
            "kl_factor": 0.125,
            "unrelated_subject": "Donald Trump",
        }
    },
    # vicuna-7b-v1.5
    "ort-vicuna": {
        "rocr": {
            **_ROCR,
            "mode": "unrelated",
            "layers": (4, 5, 6, 7, 8),
            "clamp_norm_factor": 1.0,
            "v_lr": 0.1,
            "v_loss_layer": 31,
            "kl_factor": 0.125,
            "unrelated_subject": "Elon Musk",
        }
    },
    # phi3-mini-4k-instruct, which names no mode: the code's own is reject.
    "ort-phi3": {"rocr": {**_ROCR_SEARCH, "layers": (4, 5, 6, 7, 8), "v_lr": 0.1, "v_loss_layer": 31}},
    # phi-1.5
    "ort-phi-1.5": {"rocr": {**_ROCR_SEARCH, "layers": (4, 5, 6, 7, 8), "v_lr": 0.1, "v_loss_layer": 23, "l2": 10.0}},
    # EleutherAI_gpt-j-6B
    "ort-gpt-j": {"rocr": {**_ROCR_SEARCH, "layers": (3, 4, 5, 6, 7, 8), "v_lr": 0.5, "v_loss_layer": 27, "l2": 10.0}},
    # gpt2-xl
    "ort-gpt2-xl": {
        "rocr": {
            **_ROCR_SEARCH,
            "layers": (13, 14, 15, 16, 17),
            "v_steps": 20,
            "v_lr": 0.5,
            "v_loss_layer": 47,
            "l2": 10.0,
        }
    },
    # RWKU's own for Llama-3-8B-Instruct, one target at a time (its scripts and appendix H.2; fact sheet 3.3). Deviates
    # as above.
    "rwku": {
        "ga": {**_RWKU, **_BIOGRAPHIES, "lr": 6e-8, "batch_size": 8},
        "npo": {**_RWKU, **_BIOGRAPHIES, "lr": 2e-6, "batch_size": 16, "beta": 0.2},
        "dpo": {**_RWKU, **_TRL, "lr": 5e-6, "batch_size": 8, "prefer": "fabricated"},
        "rt": {**_RWKU, "lr": 4e-7, "batch_size": 8},
        "lora_ga": {**_RWKU_LORA, **_BIOGRAPHIES, "lr": 1e-5, "batch_size": 8},
        "lora_npo": {**_RWKU_LORA, **_BIOGRAPHIES, "lr": 5e-5, "batch_size": 16, "beta": 0.2},
        "lora_dpo": {**_RWKU_LORA, **_TRL, "lr": 6e-5, "batch_size": 8, "prefer": "fabricated"},
        "lora_rt": {**_RWKU_LORA, "lr": 3e-5, "batch_size": 8},
    },
}
