"""The Qwen3.5 text model of transformers at the size of tiny-qwen3.5, and its
multi-token-prediction (MTP) head."""

import copy

import torch
from torch import nn
from torch.nn import functional
from transformers.models.qwen3_5 import modeling_qwen3_5 as qwen
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from corpora import VOCABULARY


def make_config(tokenizer):
    return Qwen3_5TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        linear_num_key_heads=4,
        linear_num_value_heads=4,
        linear_key_head_dim=64,
        linear_value_head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 100000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
    )


class MtpHead(nn.Module):
    """From the hidden state at t and the embedding of token t + 1: token t + 2."""

    def __init__(self, config):
        super().__init__()
        layer_config = copy.deepcopy(config)
        layer_config.num_hidden_layers = 1
        layer_config.layer_types = ["full_attention"]
        size, eps = config.hidden_size, config.rms_norm_eps
        self.fc = nn.Linear(2 * size, size, bias=False)
        self.layers = nn.ModuleList([qwen.Qwen3_5DecoderLayer(layer_config, 0)])
        self.norm = qwen.Qwen3_5RMSNorm(size, eps=eps)
        self.pre_fc_norm_embedding = qwen.Qwen3_5RMSNorm(size, eps=eps)
        self.pre_fc_norm_hidden = qwen.Qwen3_5RMSNorm(size, eps=eps)
        layer_config._attn_implementation = "sdpa"
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, embedding, hidden, position_embeddings):
        """embedding, hidden [B, L, D] -> [B, L, D]."""
        both = [self.pre_fc_norm_embedding(embedding), self.pre_fc_norm_hidden(hidden)]
        x = self.fc(torch.cat(both, -1))
        x = self.layers[0](x, position_embeddings=position_embeddings, attention_mask=None)
        return self.norm(x[0] if isinstance(x, tuple) else x)


def make_model(config, device):
    model = qwen.Qwen3_5ForCausalLM(config).to(device)
    model.config._attn_implementation = "sdpa"
    return model, MtpHead(config).to(device)


def losses(model, mtp, rows):
    """Next-token loss, and the MTP head's; rows [B, L + 1]."""
    inputs, targets = rows[:, :-1].long(), rows[:, 1:].long()
    base, head = model.model, model.lm_head.weight  # head [V, D]
    hidden = base(input_ids=inputs, use_cache=False).last_hidden_state  # [B, L, D]
    main = functional.cross_entropy(
        (hidden @ head.t()).float().view(-1, VOCABULARY), targets.reshape(-1))
    embedding = base.embed_tokens(targets[:, :-1])  # [B, L - 1, D]
    positions = torch.arange(embedding.shape[1], device=rows.device).expand(3, embedding.shape[0], -1)
    # The head learns from the model; the model does not learn from the head.
    ahead = mtp(embedding, hidden[:, :-1].detach(), base.rotary_emb(embedding, positions))
    second = functional.cross_entropy(
        (ahead @ head.detach().t()).float().view(-1, VOCABULARY), targets[:, 1:].reshape(-1))
    return main, second
