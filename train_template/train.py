"""Train a small GPT for a fixed budget and report val_bpb. Agents edit this file, top to bottom.

    python train.py > run.log 2>&1
    grep '^val_bpb:' run.log
"""

import time

STARTED = time.perf_counter()

import gc
import math
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

import prepare

env = prepare.read_environment()

# ---------------------------------------------------------------------------
# Hyper-parameters
# ---------------------------------------------------------------------------

if env.profile.name == "cpu":
    # Model
    DEPTH = 2               # layers
    N_EMBD = 64             # width, a multiple of HEAD_DIM
    HEAD_DIM = 32           # width of one attention head
    WINDOW_PATTERN = "SL"   # per layer, repeated: S short window, L whole context; last is L
    SHORT_WINDOW = 32       # earlier tokens an S layer sees
    ROPE_BASE = 10_000      # longest wavelength of the positions, in tokens / 2π
    SOFTCAP = 0             # bound of the logits, 0 = none
    # Batch
    BATCH_SIZE = 16         # rows per optimizer step
    DEVICE_BATCH_SIZE = 64  # rows per forward pass, at most
    # Optimizer
    MATRIX_LR = 0.02        # Muon: matrices of the blocks
    EMBEDDING_LR = 0.1      # AdamW: token and value embeddings
    UNEMBEDDING_LR = 0.004  # AdamW: head
    SCALAR_LR = 0.1         # AdamW: x0 lambdas; a hundredth of it for residual lambdas
    WEIGHT_DECAY = 0.1      # Muon, cautious, falls to 0 over the run
    MUON_WARMUP = 100       # steps until MUON_MOMENTUM is reached
    # Schedule
    WARMUP_RATIO = 0.0      # part of the budget
    WARMDOWN_RATIO = 0.3    # part of the budget
    FINAL_LR_FRAC = 0.1     # of the full learning rate

if env.profile.name == "gpu":
    # Model
    DEPTH = 9               # layers
    N_EMBD = 640            # width, a multiple of HEAD_DIM
    HEAD_DIM = 128          # width of one attention head
    WINDOW_PATTERN = "L"    # per layer, repeated: S short window, L whole context; last is L
    SHORT_WINDOW = 256      # earlier tokens an S layer sees; the mask costs SDPA its fastest kernel
    ROPE_BASE = 200_000     # longest wavelength of the positions, in tokens / 2π
    SOFTCAP = 15            # bound of the logits, 0 = none
    # Batch
    BATCH_SIZE = 128        # rows per optimizer step: 2^18 tokens
    DEVICE_BATCH_SIZE = 64  # rows per forward pass, at most (halve it when out of memory)
    # Optimizer
    MATRIX_LR = 0.04        # Muon: matrices of the blocks
    EMBEDDING_LR = 1.0      # AdamW: token and value embeddings
    UNEMBEDDING_LR = 0.0055  # AdamW: head
    SCALAR_LR = 0.5         # AdamW: x0 lambdas; a hundredth of it for residual lambdas
    WEIGHT_DECAY = 0.2      # Muon, cautious, falls to 0 over the run
    MUON_WARMUP = 200       # steps until MUON_MOMENTUM is reached
    # Schedule
    WARMUP_RATIO = 0.0      # part of the budget
    WARMDOWN_RATIO = 0.75   # part of the budget
    FINAL_LR_FRAC = 0.05    # of the full learning rate

INIT_SCALE = 0.68           # of the blocks' uniform initial weights, 1.0 keeps the variance
X0_INIT = 0.05              # initial share of the embedding that is added back before every layer
QK_GAIN = 1.15              # of queries and keys after their norm: sharper attention
GATE_CHANNELS = 32          # channels of the stream that steer the value embeddings' gates
ADAM_BETAS = (0.8, 0.95)
EMBEDDING_DECAY = 0.001     # AdamW weight decay of the token embeddings
VALUE_DECAY = 0.003         # AdamW weight decay of the value embeddings
HEAD_DECAY = 0.01           # AdamW weight decay of the head
MUON_MOMENTUM = 0.95        # reached from 0.85
MUON_BETA2 = 0.95           # memory of the row variances
UNTIMED_STEPS = 10          # CUDA, budget in seconds: first steps compile and are not counted

# ---------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


def has_value_embedding(layer):
    # Every second layer, counted from the last.
    return (DEPTH - 1 - layer) % 2 == 0


class Linear(nn.Linear):
    """No bias; float32 weights take part in the precision of the input."""

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out, bias=False)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))


class Rotary(nn.Module):
    """Turns each pair of channels by an angle that grows with the position (RoPE)."""

    def __init__(self, T):
        super().__init__()
        frequencies = ROPE_BASE ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angles = torch.outer(torch.arange(T).float(), frequencies)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x):  # (B, heads, T, HEAD_DIM)
        T = x.size(2)
        cos, sin = self.cos[:T].to(x.dtype), self.sin[:T].to(x.dtype)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1)


class Attention(nn.Module):
    def __init__(self, layer, T):
        super().__init__()
        self.n_head = N_EMBD // HEAD_DIM
        self.q = Linear(N_EMBD, N_EMBD)
        self.k = Linear(N_EMBD, N_EMBD)
        self.v = Linear(N_EMBD, N_EMBD)
        self.proj = Linear(N_EMBD, N_EMBD)
        self.gate = Linear(GATE_CHANNELS, self.n_head) if has_value_embedding(layer) else None
        kind = WINDOW_PATTERN[layer % len(WINDOW_PATTERN)]
        self.window = SHORT_WINDOW if kind == "S" and layer < DEPTH - 1 else T
        mask = None
        if self.window < T:
            distance = torch.arange(T)[:, None] - torch.arange(T)
            mask = (distance >= 0) & (distance <= self.window)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x, value_embedding, rotary):
        B, T, C = x.shape

        def heads(y):
            return y.view(B, T, self.n_head, HEAD_DIM).transpose(1, 2)

        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        if self.gate is not None:
            gate = 2 * torch.sigmoid(self.gate(x[..., :GATE_CHANNELS]))  # 1 at the start
            v = v + gate.transpose(1, 2).unsqueeze(-1) * heads(value_embedding)
        q, k = norm(rotary(q)) * QK_GAIN, norm(rotary(k)) * QK_GAIN
        if self.mask is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask[:T, :T])
        return self.proj(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = Linear(N_EMBD, 4 * N_EMBD)
        self.proj = Linear(4 * N_EMBD, N_EMBD)

    def forward(self, x):
        return self.proj(F.relu(self.fc(x)).square())


class Block(nn.Module):
    def __init__(self, layer, T):
        super().__init__()
        self.attention = Attention(layer, T)
        self.mlp = MLP()

    def forward(self, x, value_embedding, rotary):
        x = x + self.attention(norm(x), value_embedding, rotary)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    def __init__(self, vocab_size, T):
        super().__init__()
        self.rotary = Rotary(T)
        self.embedding = nn.Embedding(vocab_size, N_EMBD)
        layers = [i for i in range(DEPTH) if has_value_embedding(i)]
        self.value_embeddings = nn.ModuleDict(
            {str(i): nn.Embedding(vocab_size, N_EMBD) for i in layers}
        )
        self.blocks = nn.ModuleList(Block(i, T) for i in range(DEPTH))
        self.head = Linear(N_EMBD, vocab_size)
        self.resid_lambdas = nn.Parameter(torch.ones(DEPTH))
        self.x0_lambdas = nn.Parameter(torch.full((DEPTH,), float(X0_INIT)))
        self.init_weights()

    @torch.no_grad()
    def init_weights(self):
        bound = (3 / N_EMBD) ** 0.5  # A uniform weight of this bound has variance 1 / N_EMBD.
        self.embedding.weight.normal_()
        self.head.weight.normal_(std=0.001)
        for embedding in self.value_embeddings.values():
            embedding.weight.uniform_(-bound, bound)
        for block in self.blocks:
            attention, mlp = block.attention, block.mlp
            for layer in (attention.q, attention.k, attention.v, mlp.fc):
                layer.weight.uniform_(-INIT_SCALE * bound, INIT_SCALE * bound)
            # Every block starts as the identity.
            attention.proj.weight.zero_()
            mlp.proj.weight.zero_()
            if attention.gate is not None:
                attention.gate.weight.zero_()

    def forward(self, tokens):
        """Logits (B, T, vocabulary) in float32; position t has seen the tokens up to t only."""
        dtype = torch.bfloat16 if tokens.is_cuda else torch.float32
        x = x0 = norm(self.embedding(tokens).to(dtype))
        for i, block in enumerate(self.blocks):
            x = self.resid_lambdas[i].to(dtype) * x + self.x0_lambdas[i].to(dtype) * x0
            value_embedding = None
            if has_value_embedding(i):
                value_embedding = self.value_embeddings[str(i)](tokens).to(dtype)
            x = block(x, value_embedding, self.rotary)
        logits = self.head(norm(x)).float()
        return SOFTCAP * torch.tanh(logits / SOFTCAP) if SOFTCAP else logits

    def flops_per_token(self, T):
        """Forward and backward: 6 per multiplied weight, 12 per channel and attended token."""
        weights = sum(p.numel() for p in self.blocks.parameters()) + self.head.weight.numel()
        attended = sum(min(block.attention.window, T) for block in self.blocks)
        return 6 * weights + 12 * N_EMBD * attended


def build_model():
    """The untrained model, on the CPU; its weights follow torch's seed."""
    assert N_EMBD % HEAD_DIM == 0, "N_EMBD must be a multiple of HEAD_DIM"
    assert GATE_CHANNELS <= N_EMBD, "GATE_CHANNELS must not exceed N_EMBD"
    return GPT(env.profile.vocab_size, env.profile.sequence_length)


# ---------------------------------------------------------------------------
# Optimizer: Muon for the blocks' matrices, AdamW for the rest
# ---------------------------------------------------------------------------

# Polar Express (Amsel, Persson, Musco, Gower 2025, arXiv 2505.16932): the best quintic for each of
# five steps, with the safety margin that modded-nanogpt and nanochat use.
POLAR_EXPRESS = [
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
]


def orthogonalize(matrices):
    """The nearest matrices with singular values near 1, by products only."""
    X = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = X.size(-2) > X.size(-1)
    X = X.mT if tall else X
    X = X / (X.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        A = X @ X.mT
        X = a * X + (b * A + c * (A @ A)) @ X
    return (X.mT if tall else X).to(matrices.dtype)


def muon_direction(grads, average, variance, momentum):
    """Nesterov momentum, orthogonalized, its rows (or columns) brought to equal size (NorMuon)."""
    average.mul_(momentum).add_(grads * (1 - momentum))
    update = orthogonalize(grads * (1 - momentum) + average * momentum)
    dim = -1 if update.size(-2) >= update.size(-1) else -2
    squares = update.square().mean(dim=dim, keepdim=True)
    variance.mul_(MUON_BETA2).add_(squares * (1 - MUON_BETA2))
    scale = variance.clamp_min(1e-10).rsqrt()
    # The whole matrix keeps its size. The first gradients of most matrices are 0, hence the clamp.
    before = squares.sum(dim=(-2, -1), keepdim=True)
    after = (squares * scale.square()).sum(dim=(-2, -1), keepdim=True)
    return update * scale * (before / after.clamp_min(1e-10)).sqrt()


class Muon(torch.optim.Optimizer):
    """Keller Jordan's Muon; a group holds matrices of one shape, updated in one stack."""

    def __init__(self, params, lr, weight_decay, compiled):
        by_shape = {}
        for p in params:
            by_shape.setdefault(p.shape, []).append(p)
        groups = [{"params": group} for group in by_shape.values()]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        self.momentum = MUON_MOMENTUM
        self.direction = muon_direction
        if compiled:
            self.direction = torch.compile(muon_direction, dynamic=False)

    @torch.no_grad()
    def step(self):
        momentum = torch.tensor(self.momentum)  # A tensor: new values need no new compilation.
        for group in self.param_groups:
            params = group["params"]
            grads = torch.stack([p.grad for p in params])
            state = self.state[params[0]]
            rows, columns = grads.shape[-2:]
            if not state:
                state["average"] = torch.zeros_like(grads)
                sizes = grads[..., :1] if rows >= columns else grads[..., :1, :]
                state["variance"] = torch.zeros_like(sizes)
            update = self.direction(grads, state["average"], state["variance"], momentum)
            stack = torch.stack(params)
            # Cautious decay: only weights that the update does not already push outward.
            update = update + group["weight_decay"] * stack * (update * stack >= 0)
            stack -= group["lr"] * max(1, rows / columns) ** 0.5 * update
            torch._foreach_copy_(params, list(stack.unbind()))


def build_optimizers(model, compiled):
    values = list(model.value_embeddings.parameters())
    groups = [
        dict(params=[model.head.weight], lr=UNEMBEDDING_LR, weight_decay=HEAD_DECAY),
        dict(params=[model.embedding.weight], lr=EMBEDDING_LR, weight_decay=EMBEDDING_DECAY),
        dict(params=values, lr=EMBEDDING_LR, weight_decay=VALUE_DECAY),
        dict(params=[model.resid_lambdas], lr=SCALAR_LR * 0.01),
        dict(params=[model.x0_lambdas], lr=SCALAR_LR, betas=(0.96, 0.95)),
    ]
    adamw = torch.optim.AdamW(groups, betas=ADAM_BETAS, eps=1e-10, weight_decay=0.0, fused=True)
    muon = Muon(model.blocks.parameters(), MATRIX_LR, WEIGHT_DECAY, compiled)
    for group in adamw.param_groups + muon.param_groups:
        group["full_lr"] = group["lr"]
    return adamw, muon


def lr_fraction(progress):
    """Of the full learning rate, by the part of the budget that is used up."""
    if progress < WARMUP_RATIO:
        return progress / WARMUP_RATIO
    if progress <= 1 - WARMDOWN_RATIO:
        return 1.0
    left = (1 - progress) / WARMDOWN_RATIO
    return left + (1 - left) * FINAL_LR_FRAC


# ---------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------

# Dense bf16 peak in FLOP/s, by a part of the device's name.
PEAK_FLOPS = {"B200": 2250e12, "H200": 989.5e12, "H100": 989.5e12, "A100": 312e12}
PEAK_FLOPS |= {"L40S": 362e12, "4090": 165.2e12}


def train(model, device):
    """Spend the budget; return (steps, seconds, tokens per counted second)."""
    T = env.profile.sequence_length
    compiled = device.type == "cuda"

    def batch_loss(inputs, targets):
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    if compiled:
        batch_loss = torch.compile(batch_loss, dynamic=False)
    adamw, muon = build_optimizers(model, compiled)
    accumulation = math.ceil(BATCH_SIZE / DEVICE_BATCH_SIZE)
    assert BATCH_SIZE % accumulation == 0, "BATCH_SIZE must be a multiple of DEVICE_BATCH_SIZE"
    loader = prepare.make_loader(env, BATCH_SIZE // accumulation, device)
    untimed = UNTIMED_STEPS if compiled and env.budget.seconds else 0

    gc.freeze()
    gc.disable()  # A collection stalls a step for as long as half a second.
    seconds, smooth_loss, last_line, step = 0.0, 0.0, -math.inf, 0
    inputs, targets = next(loader)
    while (progress := env.budget.progress(step, seconds)) < 1:
        started = time.perf_counter()
        fraction = lr_fraction(progress)
        for group in adamw.param_groups + muon.param_groups:
            group["lr"] = group["full_lr"] * fraction
        for group in muon.param_groups:
            group["weight_decay"] = WEIGHT_DECAY * (1 - progress)
        muon.momentum = 0.85 + (MUON_MOMENTUM - 0.85) * min(1, step / MUON_WARMUP)

        loss = 0.0
        for _ in range(accumulation):
            part = batch_loss(inputs, targets) / accumulation
            part.backward()
            loss = loss + part.detach()
            inputs, targets = next(loader)  # The CPU packs while the GPU computes.
        adamw.step()
        muon.step()
        model.zero_grad(set_to_none=True)
        loss = float(loss)
        if device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        dt = now - started
        if not loss <= 100:
            print(f"FAIL: loss is {loss:.4g} at step {step}", flush=True)
            sys.exit(1)
        step += 1
        seconds += dt if step > untimed else 0.0

        smooth_loss = 0.9 * smooth_loss + 0.1 * loss
        progress = env.budget.progress(step, seconds)
        if now - last_line >= 0.5 or progress == 1:
            last_line = now
            steps, limit = env.budget.steps, env.budget.seconds
            left = (steps - step) * dt if steps else limit - seconds
            line = (
                f"step {step:05d} ({100 * progress:.1f}%) | "
                f"loss: {smooth_loss / (1 - 0.9**step):.4f} | lr: {fraction:.2f} | "
                f"dt: {1000 * dt:.0f}ms | tok/s: {BATCH_SIZE * T / dt:,.0f} | "
                f"remaining: {max(0.0, left):.0f}s"
            )
            if sys.stdout.isatty():  # One line, overwritten.
                print(f"\r{line}   ", end="" if progress < 1 else "\n", flush=True)
            else:
                print(line, flush=True)
    gc.enable()
    return step, seconds, BATCH_SIZE * T * (step - untimed) / seconds


@torch.no_grad()
def sample_text(model, device, length=48):
    """What the model writes after the start of a document, on one line."""
    tokenizer = prepare.load_tokenizer(env)
    tokens = torch.tensor([[tokenizer.encode_single_token(prepare.BOS)]], device=device)
    for _ in range(length):
        probabilities = torch.softmax(model(tokens)[0, -1] / 0.8, dim=-1)
        tokens = torch.cat([tokens, torch.multinomial(probabilities, 1)[None]], dim=1)
    return repr(tokenizer.decode(tokens[0, 1:].tolist()))


def main():
    device = prepare.start_torch(env)
    model = build_model().to(device)
    num_params = sum(p.numel() for p in model.parameters())
    print(f"profile {env.profile.name} | device {device} | budget {env.budget} | seed {env.seed}")
    print(f"fingerprint {prepare.fingerprint(prepare.get_manifest(env))}")
    tokens_per_step = BATCH_SIZE * env.profile.sequence_length
    print(f"{num_params:,} parameters, {tokens_per_step:,} tokens per step", flush=True)

    num_steps, training_seconds, tokens_per_second = train(model, device)
    model.eval()
    val_bpb = prepare.evaluate_bpb(model, env, DEVICE_BATCH_SIZE)
    print(f"sample: {sample_text(model, device)}")

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
    flops = tokens_per_second * model.flops_per_token(env.profile.sequence_length)
    vram = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
    print("---")
    print(f"val_bpb:          {val_bpb:.6f}")
    print(f"training_seconds: {training_seconds:.1f}")
    print(f"total_seconds:    {time.perf_counter() - STARTED:.1f}")
    print(f"peak_vram_mb:     {vram:.1f}")
    print(f"mfu_percent:      {f'{100 * flops / peak:.2f}' if peak else 'unknown'}")
    print(f"total_tokens_M:   {num_steps * tokens_per_step / 1e6:.1f}")
    print(f"num_steps:        {num_steps}")
    print(f"num_params_M:     {num_params / 1e6:.1f}")
    print(f"depth:            {DEPTH}")


if __name__ == "__main__":
    main()
