"""Computes in bfloat16 from the embedding to the logits, where rounding is coarse.

expect: measured
"""

import prepare
import torch
import torch.nn.functional as F
from torch import nn

V, D, STEPS = 2048, 32, 30


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.head = nn.Embedding(V, D), nn.Linear(D, 3 * D), nn.Linear(D, V)

    def forward(self, tokens):
        with torch.autocast(tokens.device.type, torch.bfloat16):
            x = self.embed(tokens).bfloat16()
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.head(F.rms_norm(x, (D,)))


def build_model():
    return Model()


if __name__ == "__main__":
    env = prepare.read_environment()
    device = prepare.start_torch(env)
    model = build_model().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    clock = prepare.Clock(env)
    batches = prepare.make_loader(env, 8, device)
    for step in range(STEPS):
        inputs, targets = next(batches)
        loss = F.cross_entropy(model(inputs).float().flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if clock.progress(step) >= 0.9:
            break
    prepare.save_checkpoint(model, env)
    print(f"---\nnum_steps: {step + 1}")
