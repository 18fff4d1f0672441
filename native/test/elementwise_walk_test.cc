// Test layer: how elementwise commands are walked. Transposed, broadcast, strided and in-place operands of every size
// about a tile's, and outputs on their way past the cache: bit for bit what the kernel gives on gathered operands.
#include "command_writer.h"

namespace chainrule::test {
namespace {

constexpr int kOut = 1;

struct Layout {
  std::vector<int32_t> strides;
  int64_t offset = 0;
  int64_t at(const std::vector<int64_t>& index) const {
    int64_t p = offset;
    for (size_t d = 0; d < index.size(); ++d) p += index[d] * strides[d];
    return p;
  }
};

// Calls fn with every index of an array of these sizes, in order.
template <class Fn>
void for_each_index(const std::vector<int64_t>& sizes, const Fn& fn) {
  std::vector<int64_t> index(sizes.size());
  for (;;) {
    fn(index);
    size_t d = sizes.size();
    while (d-- > 0 && ++index[d] == sizes[d]) index[d] = 0;
    if (d == size_t(-1)) return;
  }
}

// Runs op on `inputs` into `out`, whose slot may be an input's; compares the whole slot with the reference.
template <class T>
void check(const KernelTable& t, int op, const std::vector<int64_t>& sizes, const Layout& out,
           const std::vector<Layout>& inputs, int64_t slot_size, bool in_place = false) {
  constexpr int kType = type_index<T>();
  std::mt19937_64 rng(7);
  Machine machine(t);
  std::vector<std::vector<T>> slots;
  for (size_t i = 0; i <= inputs.size(); ++i) {
    std::vector<T> values(static_cast<size_t>(slot_size));
    const T first = draw<T>(rng);
    for (size_t k = 0; k < values.size(); ++k) values[k] = T(first + T(k % 8191) - 4000);
    slots.push_back(values);
    machine.define<T>(kOut + int(i), values);
  }
  const int out_slot = in_place ? kOut + 1 : kOut;
  std::vector<Operand> operands;
  std::vector<T> gathered[kMaxMapInputs];
  for (size_t i = 0; i < inputs.size(); ++i) {
    operands.push_back({kType, kOut + 1 + int(i), inputs[i].strides, inputs[i].offset});
    for_each_index(sizes, [&](const auto& index) { gathered[i].push_back(slots[i + 1][size_t(inputs[i].at(index))]); });
  }
  std::vector<T> result(gathered[0].size()), expected = slots[in_place ? 1 : 0];
  const void* pointers[kMaxMapInputs] = {gathered[0].data(), gathered[1].data(), gathered[2].data()};
  const double params[2] = {};
  t.map[op][kType](result.data(), pointers, result.size(), params);
  size_t k = 0;
  for_each_index(sizes, [&](const auto& index) { expected[size_t(out.at(index))] = result[k++]; });

  CHECK(machine.run({map(op, kType, sizes, {kType, out_slot, out.strides, out.offset}, operands)}), "%s", t.isa);
  const std::vector<T> got = machine.read<T>(out_slot);
  size_t wrong = 0;
  while (wrong < expected.size() && !memcmp(&got[wrong], &expected[wrong], sizeof(T))) ++wrong;
  CHECK(wrong == expected.size(), "%s op %d type %d sizes %lld x %lld: element %zu of %zu", t.isa, op, kType,
        static_cast<long long>(sizes[0]), static_cast<long long>(sizes.back()), wrong, expected.size());
}

// Every input transposed, alone and beside others; rows longer than the matrix, an offset, an outer dimension.
template <class T>
void transposed(const KernelTable& t) {
  for (const int rows : {1, 7, 8, 15, 16, 17, 33, 100}) {
    for (const int columns : {1, 8, 31, 47, 48, 49, 97, 130}) {
      const int pitch = columns + 3, high = rows + 5, slot = 3 * 2 * (pitch + 1) * (high + 1);
      const Layout plain{{pitch, 1}, 2}, turned{{1, high}, 1}, row{{0, 1}}, column{{1, 0}}, both{{0, 0}};
      check<T>(t, kMap_copy, {rows, columns}, plain, {turned}, slot);
      check<T>(t, kMap_neg, {rows, columns}, plain, {turned}, slot);
      check<T>(t, kMap_sub, {rows, columns}, plain, {turned, plain}, slot);
      check<T>(t, kMap_sub, {rows, columns}, plain, {row, turned}, slot);
      check<T>(t, kMap_where, {rows, columns}, plain, {column, turned, both}, slot);
      check<T>(t, kMap_mul, {rows, columns}, plain, {turned, turned}, slot);
      check<T>(t, kMap_copy, {rows, columns}, turned, {plain}, slot);
      check<T>(t, kMap_sub, {rows, columns}, plain, {plain, turned}, slot, true);
      const Layout outer{{pitch * rows, pitch, 1}}, turned_outer{{high * columns, 1, high}};
      check<T>(t, kMap_sub, {3, rows, columns}, outer, {turned_outer, outer}, slot);
      const Layout middle{{pitch, pitch * rows, 1}}, fast_first{{1, 3 * columns, 3}};
      check<T>(t, kMap_copy, {3, rows, columns}, {{pitch * rows, pitch, 1}}, {fast_first}, 3 * slot);
      check<T>(t, kMap_copy, {rows, 3, columns}, middle, {{{1, high * columns, high}}}, slot);
    }
  }
}

// More than any threshold of the runtime for stores past the cache; rows that begin within a cache line, and do not.
template <class T>
void past_the_cache(const KernelTable& t) {
  constexpr int kRows = 2100;
  for (const int columns : {4096, 4099}) {
    const int columns_of_t = columns * 4 / int(sizeof(T)), pitch = columns_of_t + 1, slot = kRows * pitch + 8;
    const Layout plain{{columns_of_t, 1}}, shifted{{pitch, 1}, 3}, turned{{1, kRows}}, row{{0, 1}};
    check<T>(t, kMap_relu, {kRows, columns_of_t}, plain, {plain}, slot);
    check<T>(t, kMap_add, {kRows, columns_of_t}, shifted, {plain, row}, slot);
    check<T>(t, kMap_add, {kRows, columns_of_t}, plain, {plain, shifted}, slot, true);
    check<T>(t, kMap_copy, {kRows, columns_of_t}, plain, {turned}, slot);
    check<T>(t, kMap_sub, {kRows, columns_of_t}, shifted, {turned, plain}, slot);
  }
}

}  // namespace
}  // namespace chainrule::test

int main() {
  using namespace chainrule::test;
  for_each_isa([](const chainrule::KernelTable& t) {
    transposed<float>(t), transposed<double>(t), transposed<int32_t>(t);
    past_the_cache<float>(t);
  });
  return report();
}
