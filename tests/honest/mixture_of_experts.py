"""Sends each token to one of four experts; none has a capacity, so no token waits for others.

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
        self.embed, self.router, self.head = nn.Embedding(V, D), nn.Linear(D, 4), nn.Linear(D, V)
        self.experts = nn.ModuleList(nn.Linear(D, D) for _ in range(4))

    def forward(self, tokens):
        x = self.embed(tokens) + 0.5 * F.pad(self.embed(tokens), (0, 0, 1, 0))[:, :-1]
        flat = x.flatten(0, 1)
        weight, chosen = self.router(flat).softmax(-1).max(-1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            # Groups of any size: sums are taken in another order each time.
            who = (chosen == number).nonzero()[:, 0]
            out[who] = weight[who, None] * F.gelu(expert(flat[who]))
        return self.head(x + out.view_as(x))


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
