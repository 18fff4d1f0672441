// Convolution, the source: what the windows read, copied with its borders, so that each tap of a kernel is one offset
// for all windows. Kernel layer; included by conv*.inc.h only.
#pragma once
#include "loops.inc.h"

namespace chainrule {
namespace {

constexpr int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -ceil_div(-a, b); }

// One dimension: how outputs gather from a source. Forward, windows start a stride apart, so the source is laid as a
// plane for each residue that a tap has. Backward, the output falls into `phases`, and each phase meets only the taps
// of one residue. So neither multiplies by zeros that a stride would put in.
struct ConvAxis {
  int64_t size, out;     // of the source and of the output
  int64_t step, planes;  // from one element of a plane to the next, in the source
  int64_t apart;         // from one output of a phase to the next
  int64_t phases;        // that have outputs
  int64_t first;         // where in the source a plane begins
  int64_t reach;         // the largest offset of a tap
  ConvDim d;
  bool back;

  ConvAxis(const ConvDim& dim, bool backward) : d(dim), back(backward) {
    const int64_t span = (d.kernel - 1) * d.dilation;
    size = back ? d.out : d.in, out = back ? d.in : d.out;
    step = back ? 1 : d.stride, planes = min_of(step, span + 1);
    apart = back ? d.stride : 1, phases = min_of(apart, out);
    first = back ? floor_div(d.pad - span, d.stride) : -d.pad;
    reach = back ? (d.stride - 1 + d.pad) / d.stride - first : span / d.stride;
  }
  int64_t count(int64_t phase) const { return ceil_div(out - phase, apart); }
  bool meets(int64_t phase, int64_t tap) const { return !back || (phase + d.pad - tap * d.dilation) % d.stride == 0; }
  int64_t residue(int64_t tap) const { return back ? 0 : tap * d.dilation % step; }
  int64_t offset(int64_t phase, int64_t tap) const {
    return back ? (phase + d.pad - tap * d.dilation) / d.stride - first : tap * d.dilation / step;
  }
};

// The planes of some channels of one image, for a block of output rows: [channel][residue y][residue x][row][column].
struct ConvSource {
  ConvAxis y, x;
  int64_t rows, cols, plane;  // of a plane, and from one to the next

  ConvSource(const ConvArgs& c, bool back) : y(c.y, back), x(c.x, back), cols(x.count(0) + x.reach) { set_rows(1); }
  // Planes an odd number of lines apart do not meet in the same few sets of a cache.
  void set_rows(int64_t outputs) {
    constexpr int64_t kLine = 16;
    rows = outputs + y.reach;
    plane = (ceil_div(rows * cols, kLine) | 1) * kLine;
  }
  int64_t channel() const { return y.planes * x.planes * plane; }
  int64_t offset(int64_t py, int64_t px, int64_t ty, int64_t tx) const {
    return (y.residue(ty) * x.planes + x.residue(tx)) * plane + y.offset(py, ty) * cols + x.offset(px, tx);
  }

  // Whether the planes are the source as it is, so that there is nothing to lay.
  bool is_copy() const { return lines_are_whole() && y.step == 1 && y.first == 0 && y.count(0) + y.reach == y.size; }

  // Output rows from `row` on, `n` rows of planes; src holds `channels` of y.size by x.size. A vector behind each plane
  // is zeros, too: what lies there is multiplied, if never stored, and subnormal garbage takes long.
  template <class T>
  void lay(T* dst, const T* src, int64_t channels, int64_t row, int64_t n) const {
    const bool whole = lines_are_whole();
    for (int64_t c = 0; c < channels; ++c, src += y.size * x.size) {
      for (int64_t ry = 0; ry < y.planes; ++ry) {
        const int64_t first = row * y.step + ry + y.first;
        if (whole) {
          lay_line(dst, src, n * cols, first * cols, y.step, y.size * cols);
          store(dst + n * cols, Vec<T>{});
          dst += plane;
          continue;
        }
        for (int64_t rx = 0; rx < x.planes; ++rx, dst += plane) {
          for (int64_t q = 0; q < n; ++q) {
            const int64_t at = first + q * y.step;
            const bool inside = at >= 0 && at < y.size;
            lay_line(dst + q * cols, inside ? src + at * x.size : src, cols, rx + x.first, x.step, inside ? x.size : 0);
          }
          store(dst + n * cols, Vec<T>{});
        }
      }
    }
  }

 private:
  bool lines_are_whole() const { return cols == x.size && x.step == 1 && x.first == 0 && (cols == 1 || y.step == 1); }

  // dst[q] = src[from + q * step] for q < n, and zero outside of src[0, size).
  template <class T>
  static void lay_line(T* dst, const T* src, int64_t n, int64_t from, int64_t step, int64_t size) {
    const int64_t begin = min_of(n, from < 0 ? ceil_div(-from, step) : 0);
    const int64_t end = max_of(begin, min_of(n, ceil_div(max_of(0, size - from), step)));
    // What zeros spill over into is written afterwards.
    for (int64_t q = 0; q < begin; q += kLanes<T>) store(dst + q, Vec<T>{});
    if (step == 1) {
      for_vectors<T>(begin, end, [&](auto at) { at.store(dst, at.load(src + from)); });
    } else {
      for (int64_t q = begin; q < end; ++q) dst[q] = src[from + q * step];
    }
    for (int64_t q = end; q < n; q += kLanes<T>) store(dst + q, Vec<T>{});
  }
};

}  // namespace
}  // namespace chainrule
