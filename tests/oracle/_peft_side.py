"""PEFT's side of peft_adapters_slow.py, in an environment of its own.

_peft_side.py load MODEL ADAPTER IDS.json OUT.npy   logits with an adapter
_peft_side.py make MODEL ADAPTER IDS.json OUT.npy   the same with one that PEFT
                                                    makes and saves
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

CONFIG = {
    "r": 4,
    "lora_alpha": 6,
    "use_rslora": True,
    "target_modules": ["q_proj", "down_proj", "in_proj_qkv"],
    "rank_pattern": {"layers.3.self_attn.q_proj": 2, r"layers\.[01]\..*": 3},
    "alpha_pattern": {"down_proj": 5},
    "task_type": "CAUSAL_LM",
}


def make(base, folder):
    model = get_peft_model(base, LoraConfig(**CONFIG))
    torch.manual_seed(5)
    for name, value in model.named_parameters():
        if "lora_" in name:
            value.data = 0.1 * torch.randn_like(value)
    model.save_pretrained(folder)
    return model


def main(verb, base, adapter, ids, out):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = make(model, adapter) if verb == "make" else PeftModel.from_pretrained(model, adapter)
    tokens = torch.tensor([json.loads(Path(ids).read_text())])
    with torch.no_grad():
        np.save(out, model.eval()(tokens).logits[0].numpy())


main(*sys.argv[1:])
