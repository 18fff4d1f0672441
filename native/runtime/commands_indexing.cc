// The decoders of gather and scatter-add. Runtime layer.
#include "commands.h"

namespace chainrule {

namespace {

struct Indexing {
  DType dtype;
  int64_t source, target, indices;  // elements of [outer, rows, inner], [outer, count, inner], and the index
  int64_t bad[2];
  IndexArgs args;
};

// dtype, per element, outer, rows, count, inner
Indexing read_indexing(Reader& reader) {
  Indexing ix{};
  ix.dtype = reader.dtype(reader.word());
  ix.args.per_element = reader.word() != 0;
  ix.args.outer = reader.size(), ix.args.rows = reader.size();
  ix.args.count = reader.size(), ix.args.inner = reader.size();
  const int64_t lines = reader.product(ix.args.outer, ix.args.inner);
  ix.source = reader.product(lines, ix.args.rows);
  ix.target = reader.product(lines, ix.args.count);
  ix.indices = ix.args.per_element ? ix.target : ix.args.count;
  return ix;
}

// Writing over the index while it is followed would make the check on it worthless, and over x, copies overlap.
void refuse_overlap(Reader& reader, const Indexing& ix, int64_t written, int64_t read) {
  if (!reader.ok()) return;
  const int64_t width = static_cast<int64_t>(kDTypeBytes[ix.dtype]);
  const char* out = static_cast<const char*>(ix.args.out);
  const auto overlaps = [&](const void* input, int64_t bytes) {
    const char* begin = static_cast<const char*>(input);
    return out < begin + bytes && begin < out + written * width;
  };
  if (overlaps(ix.args.index, ix.indices * 4)) reader.fail("output overlaps the index");
  if (overlaps(ix.args.x, read * width)) reader.fail("output overlaps the input");
}

void run_indexing(Reader& reader, Status status, const int64_t (&bad)[2]) {
  if (status == kIndexOutOfRange) {
    reader.failure().detail[0] = bad[0];
    reader.failure().detail[1] = bad[1];
  }
  run(reader, status, "index out of range");
}

}  // namespace

// indexing, out, x, index
void run_gather(Reader& reader, Kernels kernels, const Context& context) {
  Indexing ix = read_indexing(reader);
  if (!reader.ok()) return;
  ix.args.out = reader.output(ix.dtype, ix.target);
  ix.args.x = reader.input(ix.dtype, ix.source);
  ix.args.index = reinterpret_cast<const int32_t*>(reader.input(kI32, ix.indices));
  ix.args.bad = ix.bad;
  refuse_overlap(reader, ix, ix.target, ix.source);
  if (reader.finish()) run_indexing(reader, kernels.gather(context, ix.args, kDTypeBytes[ix.dtype]), ix.bad);
}

// indexing, out (defined before: it is added to), x, index
void run_scatter_add(Reader& reader, Kernels kernels, const Context& context) {
  Indexing ix = read_indexing(reader);
  const int32_t type = reader.compute_type(ix.dtype, kComputeTypes);
  if (!reader.ok()) return;
  ix.args.out = reader.strided(ix.dtype, 0, ix.source, false);
  ix.args.x = reader.input(ix.dtype, ix.target);
  ix.args.index = reinterpret_cast<const int32_t*>(reader.input(kI32, ix.indices));
  ix.args.bad = ix.bad;
  refuse_overlap(reader, ix, ix.source, ix.target);
  if (reader.finish()) run_indexing(reader, kernels.scatter_add[type](context, ix.args), ix.bad);
}

}  // namespace chainrule
