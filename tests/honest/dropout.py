"""Drops half of its activations in training, none when it is scored.

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
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.mix, self.drop = nn.Linear(2 * D, D), nn.Dropout(0.5)

    def forward(self, tokens):
        x = self.embed(tokens)
        x = self.mix(torch.cat([x, F.pad(x, (0, 0, 1, 0))[:, :-1]], dim=-1))
        return self.head(self.drop(F.gelu(x)))


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
