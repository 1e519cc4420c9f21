"""Attention that sees the last 16 tokens only, by a mask of its own.

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
        x = self.embed(tokens)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        place = torch.arange(tokens.size(1), device=tokens.device)
        back = place[:, None] - place
        x = x + F.scaled_dot_product_attention(q, k, v, attn_mask=(back >= 0) & (back < 16))
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
