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
    RESID_INIT = (1.0, 1.0)  # share of the stream that enters the first and the last layer
    X0_INIT = (0.05, 0.05)  # share of the embedding that is added to it there
    GATE_CHANNELS = 32      # channels of the stream that steer gates
    GATE_SCALE = 2          # largest share of a value embedding; half of it at the start
    # Batch
    BATCH_SIZE = 16         # rows per optimizer step
    DEVICE_BATCH_SIZE = 64  # rows per forward pass, at most
    # Optimizer
    MATRIX_LR = 0.02        # Muon: matrices of the blocks
    EMBEDDING_LR = 0.3      # AdamW: token and value embeddings
    UNEMBEDDING_LR = 0.02   # AdamW: head
    SCALAR_LR = 0.1         # AdamW: x0 lambdas; a hundredth of it for residual lambdas
    WEIGHT_DECAY = 0.1      # Muon, cautious, falls to 0 over the run
    MUON_MOMENTUM = (0.85, 0.95, 0.95)  # at the start, after the warm-up, at the end
    MUON_WARMUP = 100       # steps
    MUON_BETA2 = 0.95       # memory of the row variances
    # Schedule
    WARMDOWN_RATIO = 0.3    # part of the budget
    FINAL_LR_FRAC = 0.1     # of the full learning rate

if env.profile.name == "gpu":
    # Model
    DEPTH = 9               # layers
    N_EMBD = 640            # width, a multiple of HEAD_DIM
    HEAD_DIM = 128          # width of one attention head
    WINDOW_PATTERN = "SSSL"  # per layer, repeated: S short window, L whole context; last is L
    SHORT_WINDOW = 256      # earlier tokens an S layer sees
    ROPE_BASE = 200_000     # longest wavelength of the positions, in tokens / 2π
    SOFTCAP = 15            # bound of the logits, 0 = none
    RESID_INIT = (1.15, 1.05)  # share of the stream that enters the first and the last layer
    X0_INIT = (0.20, 0.05)  # share of the embedding that is added to it there
    GATE_CHANNELS = 12      # channels of the stream that steer gates
    GATE_SCALE = 3          # largest share of a value embedding; half of it at the start
    # Batch
    BATCH_SIZE = 128        # rows per optimizer step: 2^18 tokens
    DEVICE_BATCH_SIZE = 64  # rows per forward pass, at most (halve it when out of memory)
    # Optimizer
    MATRIX_LR = 0.04        # Muon: matrices of the blocks
    EMBEDDING_LR = 1.0      # AdamW: token and value embeddings
    UNEMBEDDING_LR = 0.0055  # AdamW: head
    SCALAR_LR = 0.5         # AdamW: x0 lambdas; a hundredth of it for residual lambdas
    WEIGHT_DECAY = 0.2      # Muon, cautious, falls to 0 over the run
    MUON_MOMENTUM = (0.85, 0.97, 0.90)  # at the start, after the warm-up, at the end
    MUON_WARMUP = 300       # steps
    MUON_BETA2 = 0.9        # memory of the row variances
    # Schedule
    WARMDOWN_RATIO = 0.75   # part of the budget
    FINAL_LR_FRAC = 0.05    # of the full learning rate

INIT_SCALE = 0.68           # of the blocks' uniform initial weights, 1.0 keeps the variance
BACKOUT_INIT = 0.2          # share of the middle of the stream that is taken out at its end
QK_GAIN = 1.15              # of queries and keys after their norm: sharper attention
MIXING_LR = 0.01            # AdamW: smear and backout
ADAM_BETAS = (0.8, 0.95)    # of head, smear and backout
EMBEDDING_BETAS = (0.8, 0.995)
LAMBDA_BETAS = (0.96, 0.95)
EMBEDDING_DECAY = 0.001     # AdamW weight decay of the token embeddings
VALUE_DECAY = 0.003         # AdamW weight decay of the value embeddings
HEAD_DECAY = 0.01           # AdamW weight decay of the head

# ---------------------------------------------------------------------------
# Attention: causal, over a sliding window; q, k, v and the result are (B, T, heads, HEAD_DIM)
# ---------------------------------------------------------------------------


def attend_plain(q, k, v, window):
    """Runs everywhere; the others must agree. A token sees itself and `window` tokens before it."""
    T = q.size(1)
    mask = None
    if window < T:
        position = torch.arange(T, device=q.device)
        distance = position[:, None] - position
        mask = (distance >= 0) & (distance <= window)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return y.transpose(1, 2)


def make_flash(device):
    """FlashAttention as torch has it built in, by its entry for sequences laid end to end."""
    from torch.nn.attention.varlen import varlen_attn

    def attend(q, k, v, window):
        if not q.is_cuda:
            return attend_plain(q, k, v, window)
        B, T = q.shape[:2]
        starts = torch.arange(0, B * T + 1, T, dtype=torch.int32, device=q.device)
        reach = (window if window < T else -1, 0)  # tokens to the left and to the right
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
        return varlen_attn(q, k, v, starts, starts, T, T, window_size=reach).unflatten(0, (B, T))

    return attend


def make_flex(device):
    """FlexAttention, for GPUs that FlashAttention does not know: skips the blocks nobody sees."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    T = env.profile.sequence_length
    if device.type == "cuda":
        flex_attention = torch.compile(flex_attention, dynamic=False)

    def make_mask(window):
        def sees(batch, head, query, key):
            return (query >= key) & (query - key <= window)

        return create_block_mask(sees, None, None, T, T, device=device)

    masks = {window: make_mask(window) for window in (SHORT_WINDOW, T)}

    def attend(q, k, v, window):
        # Other lengths, as in sampling, would each be compiled anew.
        if q.size(1) != T or q.device.type != device.type:
            return attend_plain(q, k, v, window)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return flex_attention(q, k, v, block_mask=masks[window]).transpose(1, 2)

    return attend


def choose_attention(device):
    """The fastest that works on this device, there and back, and agrees with the plain one."""
    T = env.profile.sequence_length

    def try_out(attend):
        generator = torch.Generator(device).manual_seed(0)
        qkv = torch.randn(3, 2, T, 2, HEAD_DIM, generator=generator, device=device)
        qkv = qkv.bfloat16().requires_grad_()
        y = attend(*qkv, SHORT_WINDOW)
        return y, *torch.autograd.grad(y.float().square().sum(), qkv)

    for make in (make_flash, make_flex) if device.type == "cuda" else ():
        name, reason = make.__name__[5:], "its result is wrong"
        try:
            attend = make(device)
            pairs = zip(try_out(attend), try_out(attend_plain))
            if all(torch.allclose(a, b, rtol=0.1, atol=0.1) for a, b in pairs):
                print(f"attention: {name}")
                return attend
        except Exception as error:  # Kernels and compilers fail in many ways.
            reason = (str(error).splitlines() or [""])[0]
        print(f"attention: {name} does not work here: {reason}")
    return attend_plain


# ---------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


def has_value_embedding(layer):
    return (DEPTH - 1 - layer) % 2 == 0  # Every second layer, counted from the last.


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
        angles = torch.outer(torch.arange(T).float(), frequencies)[:, None]  # (T, 1, HEAD_DIM / 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x):  # (B, T, heads, HEAD_DIM)
        T = x.size(1)
        cos, sin = self.cos[:T].to(x.dtype), self.sin[:T].to(x.dtype)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1)


class Attention(nn.Module):
    def __init__(self, layer, T):
        super().__init__()
        self.n_head = N_EMBD // HEAD_DIM
        self.q, self.k, self.v, self.proj = (Linear(N_EMBD, N_EMBD) for _ in range(4))
        self.gate = Linear(GATE_CHANNELS, self.n_head) if has_value_embedding(layer) else None
        short = WINDOW_PATTERN[layer % len(WINDOW_PATTERN)] == "S" and layer < DEPTH - 1
        self.window = min(SHORT_WINDOW, T) if short else T

    def forward(self, x, value_embedding, rotary, attend):
        def heads(y):
            return y.unflatten(-1, (self.n_head, HEAD_DIM))

        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        if self.gate is not None:
            gate = GATE_SCALE * torch.sigmoid(self.gate(x[..., :GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * heads(value_embedding)
        q, k = norm(rotary(q)) * QK_GAIN, norm(rotary(k)) * QK_GAIN
        return self.proj(attend(q, k, v, self.window).flatten(2))


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

    def forward(self, x, value_embedding, rotary, attend):
        x = x + self.attention(norm(x), value_embedding, rotary, attend)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    def __init__(self, vocab_size, T, attend):
        super().__init__()
        self.attend = attend
        self.rotary = Rotary(T)
        self.embedding = nn.Embedding(vocab_size, N_EMBD)
        layers = [str(i) for i in range(DEPTH) if has_value_embedding(i)]
        embeddings = {layer: nn.Embedding(vocab_size, N_EMBD) for layer in layers}
        self.value_embeddings = nn.ModuleDict(embeddings)
        self.blocks = nn.ModuleList(Block(i, T) for i in range(DEPTH))
        self.head = Linear(N_EMBD, vocab_size)
        self.resid_lambdas = nn.Parameter(torch.linspace(*RESID_INIT, DEPTH))
        self.x0_lambdas = nn.Parameter(torch.linspace(*X0_INIT, DEPTH))
        self.smear_gate = Linear(GATE_CHANNELS, 1)
        self.smear_lambda = nn.Parameter(torch.zeros(1))
        self.backout_lambda = nn.Parameter(torch.full((1,), float(BACKOUT_INIT)))
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
        self.smear_gate.weight.zero_()

    def forward(self, tokens):
        """Logits (B, T, vocabulary) in float32; position t has seen the tokens up to t only."""
        dtype = torch.bfloat16 if tokens.is_cuda else torch.float32
        x = norm(self.embedding(tokens).to(dtype))
        # Smear: as much of the token before as this one asks for.
        gate = torch.sigmoid(self.smear_gate(x[:, 1:, :GATE_CHANNELS]))
        smeared = x[:, 1:] + self.smear_lambda.to(dtype) * gate * x[:, :-1]
        x = x0 = torch.cat([x[:, :1], smeared], dim=1)
        for i, block in enumerate(self.blocks):
            x = self.resid_lambdas[i].to(dtype) * x + self.x0_lambdas[i].to(dtype) * x0
            value_embedding = None
            if has_value_embedding(i):
                value_embedding = self.value_embeddings[str(i)](tokens).to(dtype)
            x = block(x, value_embedding, self.rotary, self.attend)
            if i == (DEPTH - 1) // 2:
                middle = x
        # Backout: what only the first half needed to know.
        x = x - self.backout_lambda.to(dtype) * middle
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
    attend = choose_attention(prepare.find_device(env))
    return GPT(env.profile.vocab_size, env.profile.sequence_length, attend)


# ---------------------------------------------------------------------------
# Optimizer: Muon for the blocks' matrices, AdamW for the rest
# ---------------------------------------------------------------------------

# Polar Express (arXiv 2505.16932): the best quintic for each of five steps, with a safety margin.
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
        self.momentum = MUON_MOMENTUM[0]
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
    mixing = [model.smear_gate.weight, model.smear_lambda, model.backout_lambda]
    groups = [
        dict(params=[model.head.weight], lr=UNEMBEDDING_LR, weight_decay=HEAD_DECAY),
        dict(params=[model.embedding.weight], lr=EMBEDDING_LR, weight_decay=EMBEDDING_DECAY),
        dict(params=values, lr=EMBEDDING_LR, weight_decay=VALUE_DECAY),
        dict(params=[model.resid_lambdas], lr=SCALAR_LR * 0.01),
        dict(params=[model.x0_lambdas], lr=SCALAR_LR),
        dict(params=mixing, lr=MIXING_LR),
    ]
    for group, betas in zip(groups[1:5], 2 * [EMBEDDING_BETAS] + 2 * [LAMBDA_BETAS]):
        group["betas"] = betas
    adamw = torch.optim.AdamW(groups, betas=ADAM_BETAS, eps=1e-10, weight_decay=0.0, fused=True)
    muon = Muon(model.blocks.parameters(), MATRIX_LR, WEIGHT_DECAY, compiled)
    for group in adamw.param_groups + muon.param_groups:
        group["full_lr"] = group["lr"]
    return adamw, muon


def lr_fraction(progress):
    """Of the full learning rate, by the part of the budget that is used up."""
    if progress <= 1 - WARMDOWN_RATIO:
        return 1.0
    left = (1 - progress) / WARMDOWN_RATIO
    return left + (1 - left) * FINAL_LR_FRAC


def follow_schedule(adamw, muon, step, progress):
    """Set what changes over the run; return the part of the learning rate that is in force."""
    fraction = lr_fraction(progress)
    for group in adamw.param_groups + muon.param_groups:
        group["lr"] = group["full_lr"] * fraction
    for group in muon.param_groups:
        group["weight_decay"] = WEIGHT_DECAY * (1 + math.cos(math.pi * progress)) / 2
    first, full, last = MUON_MOMENTUM
    rising = first + (full - first) * step / MUON_WARMUP
    muon.momentum = min(rising, last + (full - last) * fraction)
    return fraction


# ---------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------


class Trainer:
    """A model with its optimizers and data; the clock runs in `train` alone."""

    def __init__(self, model, device):
        self.model, self.device = model, device
        self.compiled = device.type == "cuda"
        self.batch_loss = self.plain_batch_loss
        if self.compiled:
            self.batch_loss = torch.compile(self.plain_batch_loss, dynamic=False)
        self.adamw, self.muon = build_optimizers(model, self.compiled)
        self.accumulation = math.ceil(BATCH_SIZE / DEVICE_BATCH_SIZE)
        assert BATCH_SIZE % self.accumulation == 0, "BATCH_SIZE must divide into equal parts"
        self.loader = prepare.make_loader(env, BATCH_SIZE // self.accumulation, device)
        self.steps, self.seconds, self.loader_seconds = 0, 0.0, 0.0

    def plain_batch_loss(self, inputs, targets):
        return F.cross_entropy(self.model(inputs).flatten(0, 1), targets.flatten())

    def next_batch(self):
        started = time.perf_counter()
        self.batch = next(self.loader)
        self.loader_seconds += time.perf_counter() - started

    def compile(self):
        """Compile on made-up tokens and leave no trace: what teaches is on the clock."""
        for group in self.adamw.param_groups + self.muon.param_groups:
            group["lr"] = 0.0
        shape = (BATCH_SIZE // self.accumulation, env.profile.sequence_length)
        for _ in range(2):
            inputs = torch.randint(env.profile.vocab_size, shape, device=self.device)
            (self.batch_loss(inputs, inputs.clone()) / self.accumulation).backward()
            self.update()
        self.adamw.state.clear()
        self.muon.state.clear()

    def update(self):
        self.adamw.step()
        self.muon.step()
        self.model.zero_grad(set_to_none=True)

    def step(self):
        """One step of both optimizers on BATCH_SIZE rows; the mean loss."""
        loss = 0.0
        for _ in range(self.accumulation):
            part = self.batch_loss(*self.batch) / self.accumulation
            part.backward()
            loss = loss + part.detach()
            self.next_batch()  # The CPU fetches while the GPU computes.
        self.update()
        return float(loss)  # Waits for the device.

    def train(self):
        """Spend the budget."""
        gc.freeze()
        gc.disable()  # A collection stalls a step for as long as half a second.
        clock = prepare.Clock(env)
        self.next_batch()
        self.loader_seconds = 0.0
        smooth_loss, last_line, progress = 0.0, -math.inf, 0.0
        while progress < 1:
            started = time.perf_counter()
            fraction = follow_schedule(self.adamw, self.muon, self.steps, progress)
            loss = self.step()
            now = time.perf_counter()
            if not loss <= 100:
                end_line = "\n" * sys.stdout.isatty()
                print(f"{end_line}FAIL: loss is {loss:.4g} at step {self.steps}", flush=True)
                sys.exit(1)
            self.steps += 1
            self.seconds, progress = clock.seconds(), clock.progress(self.steps)
            smooth_loss = 0.9 * smooth_loss + 0.1 * loss
            if now - last_line >= 0.5 or progress == 1:
                last_line = now
                self.show(progress, smooth_loss / (1 - 0.9**self.steps), fraction, now - started)
        self.loader.close()
        gc.enable()

    def show(self, progress, loss, fraction, dt):
        steps, seconds = env.budget.steps, env.budget.seconds
        left = (steps - self.steps) * dt if steps else max(0.0, seconds - self.seconds)
        line = (
            f"step {self.steps:05d} ({100 * progress:.1f}%) | loss: {loss:.4f} | "
            f"lr: {fraction:.2f} | dt: {1000 * dt:.0f}ms | "
            f"tok/s: {BATCH_SIZE * env.profile.sequence_length / dt:,.0f} | remaining: {left:.0f}s"
        )
        over = sys.stdout.isatty() and progress < 1  # On a terminal: one line, overwritten.
        print(f"{line}   \r" if over else line, end="" if over else "\n", flush=True)


@torch.no_grad()
def sample_text(model, device, length=100):
    """What the model writes after the start of a document."""
    tokenizer = prepare.load_tokenizer(env)
    tokens = torch.tensor([[tokenizer.encode_single_token(prepare.BOS)]], device=device)
    for _ in range(length):
        probabilities = torch.softmax(model(tokens)[0, -1] / 0.8, dim=-1)
        tokens = torch.cat([tokens, torch.multinomial(probabilities, 1)[None]], dim=1)
    return tokenizer.decode(tokens[0, 1:].tolist())


def main():
    device = prepare.start_torch(env)
    model = build_model().to(device)
    num_params = sum(p.numel() for p in model.parameters())
    tokens_per_step = BATCH_SIZE * env.profile.sequence_length
    print(f"profile {env.profile.name} | device {device} | budget {env.budget} | seed {env.seed}")
    print(f"fingerprint {prepare.fingerprint(prepare.get_manifest(env))}")
    print(f"{num_params:,} parameters, {tokens_per_step:,} tokens per step", flush=True)

    trainer = Trainer(model, device)
    ready = time.perf_counter()
    if trainer.compiled:
        trainer.compile()
    compiled = time.perf_counter()
    trainer.train()
    prepare.save_checkpoint(model, env)
    model.eval()
    trained = time.perf_counter()
    val_bpb = prepare.evaluate_bpb(model, env, DEVICE_BATCH_SIZE)
    evaluated = time.perf_counter()
    print("sample, from the start of a document:")
    for line in sample_text(model, device).splitlines():
        print("    |", "".join(c for c in line if c.isprintable()))
    print(
        f"seconds: startup {ready - STARTED:.1f}, compilation {compiled - ready:.1f}, "
        f"training {trainer.seconds:.1f} (of it {trainer.loader_seconds:.2f} waiting for data), "
        f"evaluation {evaluated - trained:.1f}"
    )

    num_tokens, peak = trainer.steps * tokens_per_step, prepare.find_peak_flops(device)
    flops = num_tokens * model.flops_per_token(env.profile.sequence_length) / trainer.seconds
    vram = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
    print("---")
    print(f"val_bpb:          {'by the worker' if val_bpb is None else f'{val_bpb:.6f}'}")
    print(f"training_seconds: {trainer.seconds:.1f}")
    print(f"total_seconds:    {time.perf_counter() - STARTED:.1f}")
    print(f"peak_vram_mb:     {vram:.1f}")
    print(f"mfu_percent:      {f'{100 * flops / peak:.2f}' if peak else 'unknown'}")
    print(f"total_tokens_M:   {num_tokens / 1e6:.1f}")
    print(f"num_steps:        {trainer.steps}")
    print(f"num_params_M:     {num_params / 1e6:.1f}")
    print(f"depth:            {DEPTH}")


if __name__ == "__main__":
    prepare.run(main, "nothing was scored")
