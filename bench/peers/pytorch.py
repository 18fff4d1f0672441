# The same work in PyTorch, on request: reads a line of JSON {case, threads, warmup, seconds}, answers with one
# {best, median, mean}, in seconds per call, sampled as in bench/measure.ts. Started by bench/peers/pytorch.ts.
import json
import os
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

import pytorch_kernels

SAMPLE = 0.003
torch.manual_seed(0)


def call_for(seconds, fn):
    end = time.perf_counter() + seconds
    calls = 0
    while calls == 0 or time.perf_counter() < end:
        fn()
        calls += 1
    return calls


def measure(fn, warmup, seconds):
    call_for(warmup, fn)
    calls = call_for(SAMPLE, fn)
    samples = []
    end = time.perf_counter() + seconds
    while len(samples) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(calls):
            fn()
        samples.append((time.perf_counter() - start) / calls)
    samples.sort()
    return {'best': samples[0], 'median': samples[len(samples) // 2], 'mean': sum(samples) / len(samples)}


def eager_cases():
    a, b = torch.randn(2), torch.randn(2)
    ar = torch.randn(2, requires_grad=True)
    m, n = torch.randn(2, 2), torch.randn(2, 2)
    w, x, bias = torch.randn(4, 3, requires_grad=True), torch.randn(3), torch.randn(4, requires_grad=True)
    one = torch.tensor(1.0)

    def layer():
        w.grad = bias.grad = None
        (w @ x + bias).relu().sum().backward()

    def chain(start):
        y = start
        for _ in range(100):
            y = y + b
        return y

    def chain_backward():
        ar.grad = None
        chain(ar).sum().backward()

    return {
        'add': lambda: a + b,
        'add, recorded': lambda: ar + b,
        'relu': lambda: a.relu(),
        'sum': lambda: a.sum(),
        'matmul 2x2': lambda: m @ n,
        'sum(relu(Wx+b)), forward and backward': layer,
        'chain of 100 adds': lambda: chain(a),
        'chain of 100 adds, recorded': lambda: chain(ar),
        'chain of 100 adds, forward and backward': chain_backward,
        'item': lambda: one.item(),
        'reshape': lambda: m.reshape(4),
        'transpose': lambda: m.T,
        'tensor of an array': lambda: torch.tensor([1.0, 2.0]),
        'zeros': lambda: torch.zeros(2),
    }


def training_case(name):
    sizes, batch, activation, loss_name, optimizer_name = name.split()
    sizes, batch = [int(size) for size in sizes.split('-')], int(batch)
    layers = []
    for i, o in zip(sizes, sizes[1:]):
        layers += [nn.Linear(i, o), {'relu': nn.ReLU, 'gelu': nn.GELU}[activation]()]
    model = nn.Sequential(*layers[:-1])
    optimizer = {'sgd': torch.optim.SGD, 'adam': torch.optim.Adam}[optimizer_name](model.parameters(), lr=1e-3)
    x = torch.randn(batch, sizes[0])
    classes = loss_name == 'ce'
    y = torch.randint(0, sizes[-1], (batch,)) if classes else torch.randn(batch, sizes[-1])
    loss = F.cross_entropy if classes else F.mse_loss

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss(model(x), y).backward()
        optimizer.step()

    return step


def blas():
    """The file that matrix products are loaded from: the reference BLAS is many times slower than any other."""
    torch.randn(64, 64) @ torch.randn(64, 64)
    with open('/proc/self/maps') as maps:
        files = {line.split()[-1] for line in maps if 'blas' in line or 'blis' in line or 'mkl' in line}
    return ' '.join(sorted({os.path.basename(os.path.realpath(file)) for file in files})) or 'built in'


cases = eager_cases()
print(json.dumps({'version': torch.__version__, 'blas': blas()}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    name = request['case']
    torch.set_num_threads(request['threads'])
    # The last one only is kept: their memory adds up.
    if name not in cases:
        cases = eager_cases()
        cases[name] = pytorch_kernels.case(name) or training_case(name)
    print(json.dumps(measure(cases[name], request['warmup'], request['seconds'])), flush=True)
