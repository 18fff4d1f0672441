#!/usr/bin/env bash
# TensorBoard itself, from PyPI, reads what SummaryWriter writes: prints what its EventAccumulator lists, and fails where a
# number differs. Needs Python 3 with venv; installs into out/tensorboard, once. No part of the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=out/tensorboard/venv logs=out/tensorboard/logs

if [[ ! -x $venv/bin/tensorboard ]]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check 'tensorboard>=2.20,<3'
fi
rm -rf "$logs"

node --import tsx --input-type=module - "$logs" <<'JS'
import { io, manualSeed, mseLoss, nn, randn, zeros } from './lib/index.ts';

manualSeed(1);
const model = new nn.Sequential(new nn.Linear(3, 4), new nn.Tanh(), new nn.Linear(4, 2));
const loss = mseLoss(model.call(randn([5, 3])), zeros([5, 2]));
const writer = new io.SummaryWriter(process.argv[2]);
for (let step = 0; step < 1000; step++) writer.addScalar('loss', 1 / (1 + step), step, 1.7e9 + step);
for (const [step, value] of [NaN, Infinity, -0.5].entries()) writer.addScalar('odd', value, step);
writer.addHistogram('values', [-1, 0, 0, 0.5, 0.5, 0.5, 2, NaN, Infinity], 7);
for (const [name, weights] of model.namedParameters()) writer.addHistogram(name, weights, 7);
writer.addText('notes', '**bold** ≤', 3);
writer.addGraph(loss, model.namedParameters());
writer.close();
JS

"$venv/bin/python" - "$logs" <<'PY'
import math, sys
import tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as PluginEventAccumulator
from tensorboard.compat.proto import graph_pb2
from tensorboard.plugins.histogram import metadata as histograms
from tensorboard.util import tensor_util

events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0, 'histograms': 0}).Reload()
print('tensorboard', tensorboard.__version__)
for kind, tags in sorted(events.Tags().items()):
    print(f'{kind}: {tags}')

loss = events.Scalars('loss')
assert [(e.wall_time, e.step) for e in loss] == [(1.7e9 + i, i) for i in range(1000)]
assert all(math.isclose(e.value, 1 / (1 + e.step), rel_tol=6e-8) for e in loss)
odd = [e.value for e in events.Scalars('odd')]
assert math.isnan(odd[0]) and odd[1:] == [math.inf, -0.5], odd
print('loss:', len(loss), 'points, from', loss[0], 'to', loss[-1])

h = events.Histograms('values')[0]
v = h.histogram_value
assert (h.step, v.min, v.max, v.num, v.sum, v.sum_squares) == (7, -1, 2, 7, 2.5, 5.75), h
assert [n for n in v.bucket if n] == [1, 2, 3, 1], v
assert events.Scalars('values/nonfinite')[0].value == 2
print('values:', v)
assert {t: events.Histograms(t)[0].histogram_value.num for t in ('0.weight', '0.bias', '2.weight', '2.bias')} == {
    '0.weight': 12, '0.bias': 4, '2.weight': 8, '2.bias': 2}

graph = graph_pb2.GraphDef.FromString(events.Graph().SerializeToString())
inputs = {n.name: list(n.input) for n in graph.node}
assert inputs['Addmm_1'] == ['2/bias', 'Tanh', '2/weight'], inputs
shape = [d.size for d in {n.name: n for n in graph.node}['0/weight'].attr['_output_shapes'].list.shape[0].dim]
assert shape == [4, 3], shape
print('graph:', inputs)

# What the dashboards read: everything turned into tensors of plugins.
plugins = PluginEventAccumulator(sys.argv[1], size_guidance={'tensors': 0}).Reload()
buckets = tensor_util.make_ndarray(plugins.Tensors('values')[0].tensor_proto)
assert buckets[:, 2].sum() == 7 and (buckets[0, 0], buckets[-1, 1]) == (-1, 2), buckets
assert (buckets[:, 0] < buckets[:, 1]).all() and (buckets[1:, 0] == buckets[:-1, 1]).all(), buckets
assert histograms.PLUGIN_NAME in plugins.ActivePlugins(), plugins.ActivePlugins()
text = tensor_util.make_ndarray(plugins.Tensors('notes')[0].tensor_proto)
assert text.tolist() == ['**bold** ≤'.encode()], text
print('plugins:', sorted(plugins.ActivePlugins()), 'text:', text[0].decode())
PY
