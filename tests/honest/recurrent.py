"""A state that is carried from token to token, written as a parallel scan over the row.

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
        self.embed, self.mix, self.head = nn.Embedding(V, D), nn.Linear(D, 2 * D), nn.Linear(D, V)

    def forward(self, tokens):
        x = self.embed(tokens)
        decay, new = self.mix(x).chunk(2, dim=-1)
        decay, state = torch.sigmoid(decay), torch.tanh(new)
        reach = 1
        while reach < tokens.size(1):
            state = state + decay * F.pad(state, (0, 0, reach, 0))[:, :-reach]
            decay = decay * F.pad(decay, (0, 0, reach, 0))[:, :-reach]
            reach *= 2
        return self.head(x + F.rms_norm(state, (D,)))


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
