# The cases of bench/{elementwise,reductions,optimizers}.ts in PyTorch, by the same names. Elementwise ops write into
# memory that is there already: what fresh memory costs is not their speed.
import torch
import torch.nn.functional as F

aten = torch.ops.aten


def elementwise(op, shape):
    x, g, out = torch.randn(shape), torch.randn(shape), torch.empty(shape)
    bias = torch.randn(shape[1])
    return {
        'relu': lambda: torch.clamp_min(x, 0, out=out),
        'relu backward': lambda: aten.threshold_backward(g, x, 0, grad_input=out),
        'bias add': lambda: torch.add(x, bias, out=out),
        'add': lambda: torch.add(x, g, out=out),
        'gelu': lambda: aten.gelu(x, out=out),
        'gelu backward': lambda: aten.gelu_backward(g, x, grad_input=out),
        'tanh': lambda: torch.tanh(x, out=out),
        'sigmoid': lambda: torch.sigmoid(x, out=out),
        'exp': lambda: torch.exp(x, out=out),
    }[op]


def cross_entropy(shape):
    x = torch.randn(shape, requires_grad=True)
    y = torch.randint(0, shape[1], (shape[0],))

    def both():
        x.grad = None
        F.cross_entropy(x, y).backward()

    return both


def layer_norm(shape, backward):
    x, g = torch.randn(shape), torch.randn(shape)
    weight, bias = torch.randn(shape[1]), torch.randn(shape[1])
    if not backward:
        return lambda: F.layer_norm(x, [shape[1]], weight, bias)
    _, mean, deviation = torch.native_layer_norm(x, [shape[1]], weight, bias, 1e-5)
    mask = [True, True, True]
    return lambda: aten.native_layer_norm_backward(g, x, [shape[1]], mean, deviation, weight, bias, mask)


def reduction(op, shape):
    if op == 'cross-entropy, forward and backward':
        return cross_entropy(shape)
    if op.startswith('layer norm'):
        return layer_norm(shape, op.endswith('backward'))
    x = torch.randn(shape)
    out = torch.empty(shape[1], shape[0])
    return {
        'softmax': lambda: torch.softmax(x, 1),
        'sum over axis 0': lambda: x.sum(0),
        'sum over axis 1': lambda: x.sum(1),
        'sum of all': lambda: x.sum(),
        'transposed copy': lambda: out.copy_(x.t()),
    }[op]


def optimizer(op, count):
    p = torch.nn.Parameter(torch.randn(count))
    p.grad = torch.randn(count)
    return {
        'SGD': lambda: torch.optim.SGD([p], lr=1e-9),
        'SGD with momentum': lambda: torch.optim.SGD([p], lr=1e-9, momentum=0.9),
        'Adam': lambda: torch.optim.Adam([p], lr=1e-9),
    }[op]().step


def case(name):
    """`part: op: sizes`, or None."""
    if name.count(': ') != 2:
        return None
    part, op, sizes = name.split(': ')
    shape = [int(size) for size in sizes.split('x')]
    if part == 'optimizers':
        return optimizer(op, shape[0])
    return {'elementwise': elementwise, 'reductions': reduction}[part](op, shape)
