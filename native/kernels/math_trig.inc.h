// Trigonometric functions and their inverses. Part of math.inc.h.
#pragma once

namespace chainrule {
namespace {

// x = (quadrant + 4 i) pi/2 + r.hi + r.lo with |r| <= pi/4.
struct ReducedAngle {
  Vec<double> quadrant;  // whole, up to a multiple of 4
  Pair<Vec<double>> r;
};

// Cody and Waite: pi/2 in three pieces of 33 bits, whose products with n are exact, and a last one of 53.
// Up to this |x|, n fits in 20 bits.
constexpr double kCodyWaiteLimit = 0x1p20;
inline ReducedAngle reduce_angle_small(Vec<double> x) {
  using V = Vec<double>;
  const V base = constant<V>(kIntegerBase<V>);
  const V n = (x * 0x1.45f306dc9c883p-1 + base) - base;
  const Pair<V> second = two_sum(x - n * 0x1.921fb544p+0, n * -0x1.0b4611a6p-34);
  const Pair<V> third = two_sum(second.hi, n * -0x1.3198a2ep-69);
  return {n, fast_two_sum(third.hi, third.lo + (second.lo - n * 0x1.b839a252049c1p-104))};
}

// Payne and Hanek, for one lane: x = m 2^e; of the bits of 2/pi those which make multiples of 4 are left out, and the
// next 192 times m, modulo 2^192, are x * 2/pi modulo 4. `quadrants` is that, in 2^-190; about 130 bits of it are
// right, and no double is nearer than 2^-62 to a multiple of pi/2.
struct LargeAngle {
  double quadrant, hi, lo;  // x * 2/pi = quadrant + 4 i + hi + lo, |hi| <= 1/2
};
inline LargeAngle reduce_angle_large(double x) {
  static constexpr uint64_t kTwoOverPi[] = {
      0x0000000000000000, 0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041, 0xfe5163abdebbc561,
      0xb7246e3a424dd2e0, 0x06492eea09d1921c, 0xfe1deb1cb129a73e, 0xe88235f52ebb4484, 0xe99c7026b45f7e41,
      0x3991d639835339f4, 0x9c845f8bbdf9283b, 0x1ff897ffde05980f, 0xef2f118b5a0a6d1f, 0x6d367ecf27cb09b7,
      0x4f463f669e5fea2d, 0x7527bac7ebe5f17b, 0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08, 0x56033046fc7b6bab};
  __extension__ typedef unsigned __int128 Wide;
  uint64_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const int exponent = int(bits >> 52 & 2047);
  if (exponent == 2047) return {0, __builtin_nan(""), 0};
  const uint64_t m = (bits & ((1ull << 52) - 1)) | 1ull << 52;
  // The bit of weight 2^-k stands at position 63 + k of the table, behind a word of zeros.
  const int first = 63 + (exponent - 1075 - 1);
  const int word = first / 64, shift = first % 64;
  const auto window = [&](int i) {
    return shift == 0 ? kTwoOverPi[word + i] : kTwoOverPi[word + i] << shift | kTwoOverPi[word + i + 1] >> (64 - shift);
  };
  const Wide low = Wide{m} * window(2), middle = Wide{m} * window(1) + uint64_t(low >> 64);
  uint64_t quadrants[3] = {m * window(0) + uint64_t(middle >> 64), uint64_t(middle), uint64_t(low)};

  // Round to the nearest quadrant; the rest as sign and magnitude.
  const double quadrant = double(((quadrants[0] >> 61) + 1) >> 1);
  const bool negative = quadrants[0] >> 61 & 1;
  quadrants[0] = quadrants[0] << 2 | quadrants[1] >> 62;
  Wide fraction = Wide{quadrants[0]} << 64 | (quadrants[1] << 2 | quadrants[2] >> 62);
  uint64_t rest = quadrants[2] << 2;
  if (negative) {
    fraction = ~fraction + (rest == 0);
    rest = -rest;
  }
  double weight = 0x1p-64;
  for (; fraction >> 127 == 0 && weight > 0x1p-160; weight *= 0.5) {
    fraction = fraction << 1 | rest >> 63;
    rest <<= 1;
  }
  const double hi = double(uint64_t(fraction >> 75)) * 0x1p11 * weight;
  const double lo = double(uint64_t(fraction >> 22) & ((1ull << 53) - 1)) * 0x1p-42 * weight;
  const double sign = negative != (x < 0) ? -1 : 1;
  return {x < 0 ? -quadrant : quadrant, sign * hi, sign * lo};
}

inline ReducedAngle reduce_angle(Vec<double> x) {
  using V = Vec<double>;
  ReducedAngle a = reduce_angle_small(x);
  const Mask<V> large = ~(abs(x) <= kCodyWaiteLimit);
  if (!any(large)) return a;
  V quadrant{};
  Pair<V> turns{};
  for (size_t i = 0; i < kLanes<double>; ++i) {
    if (!large[i]) continue;
    const LargeAngle lane = reduce_angle_large(x[i]);
    quadrant[i] = lane.quadrant;
    turns.hi[i] = lane.hi;
    turns.lo[i] = lane.lo;
  }
  const Pair<V> r = multiply(turns, {constant<V>(0x1.921fb54442d18p+0), constant<V>(0x1.1a62633145c07p-54)});
  return {select(large, quadrant, a.quadrant), {select(large, r.hi, a.r.hi), select(large, r.lo, a.r.lo)}};
}

// Both for |r| <= pi/4. Polynomials 2^-66 and 2^-59.
inline Vec<double> sin_reduced(Pair<Vec<double>> r) {
  const Vec<double> z = r.hi * r.hi;
  const Vec<double> p =
      poly(z, -0.16666666666666666, 0.0083333333333333315, -0.00019841269841265044, 2.7557319219322188e-06,
           -2.5052106226496834e-08, 1.6058530668957878e-10, -7.5866407852495763e-13);
  return r.hi + fma(r.hi * z, p, r.lo);
}
inline Vec<double> cos_reduced(Pair<Vec<double>> r) {
  using V = Vec<double>;
  const V z = r.hi * r.hi, half = 0.5 * z, head = 1 - half;
  const V p = poly(z, 0.041666666666666664, -0.0013888888888887391, 2.4801587298755762e-05, -2.7557317266494944e-07,
                   2.0876145163581403e-09, -1.138255204095506e-11);
  return head + (((1 - head) - half) + fma(z * z, p, -r.hi * r.lo));
}

// The sine of the angle `quarter` quadrants on.
inline Vec<double> sin_quadrant(const ReducedAngle& a, int quarter) {
  using V = Vec<double>;
  const Mask<V> q = (Mask<V>)((Bits<V>)to_int(a.quadrant) + Element<Bits<V>>(quarter));
  const V y = select((q & 1) != 0, cos_reduced(a.r), sin_reduced(a.r));
  return select((q & 2) != 0, -y, y);
}

// Error 0.51, 0.9 ulp. Any finite x; NaN at infinities; sin(-0) = -0.
template <class V>
inline V sin(V x) {
  if constexpr (kSingle<V>)
    return in_double([](auto v) { return sin(v); }, x);
  else
    return select(x == 0, x, sin_quadrant(reduce_angle(x), 0));
}

// Error 0.51, 0.9 ulp.
template <class V>
inline V cos(V x) {
  if constexpr (kSingle<V>)
    return in_double([](auto v) { return cos(v); }, x);
  else
    return sin_quadrant(reduce_angle(x), 1);
}

// Error 0.51, 2.2 ulp.
template <class V>
inline V tan(V x) {
  if constexpr (kSingle<V>)
    return in_double([](auto v) { return tan(v); }, x);
  else {
    const ReducedAngle a = reduce_angle(x);
    const V s = sin_reduced(a.r), t = cos_reduced(a.r);
    const Mask<V> odd = (to_int(a.quadrant) & 1) != 0;
    return select(x == 0, x, select(odd, -t, s) / select(odd, s, t));
  }
}

// asin(s) for 0 <= s <= 1/2, z = s^2. 2^-56
inline Vec<double> asin_small(Vec<double> s, Vec<double> z) {
  return fma(
      s * z,
      poly(z, 0.16666666666666669, 0.074999999999982303, 0.044642857146744229, 0.030381944109307543,
           0.022372174076347985, 0.017352366760922881, 0.013971589493427933, 0.011475583773521283, 0.010345688314471907,
           0.0053613637142590547, 0.017657095873179058, -0.015244065791441799, 0.029020443056955805),
      s);
}

// Error 0.51, 2.2 ulp. NaN beyond +-1.
template <class V>
inline V asin(V x) {
  if constexpr (kSingle<V>)
    return in_double([](auto v) { return asin(v); }, x);
  else {
    // asin(a) = pi/2 - 2 asin(sqrt((1 - a) / 2)).
    const V a = abs(x);
    const Mask<V> large = a > 0.5;
    const V z = select(large, (1 - a) * 0.5, a * a);
    const V y = asin_small(select(large, sqrt(z), a), z);
    return copysign(select(large, 0x1.921fb54442d18p+0 - (2 * y - 0x1.1a62633145c07p-54), y), x);
  }
}

// Error 0.51, 1.2 ulp. NaN beyond +-1.
template <class V>
inline V acos(V x) {
  if constexpr (kSingle<V>)
    return in_double([](auto v) { return acos(v); }, x);
  else {
    const V a = abs(x);
    const Mask<V> large = a > 0.5;
    const V z = select(large, (1 - a) * 0.5, a * a);
    const V y = asin_small(select(large, sqrt(z), a), z);
    const V from_end = select(x < 0, 0x1.921fb54442d18p+1 - (2 * y - 0x1.1a62633145c07p-53), 2 * y);
    const V from_middle = 0x1.921fb54442d18p+0 - (copysign(y, x) - 0x1.1a62633145c07p-54);
    return select(large, from_end, from_middle);
  }
}

// Error 0.51, 2.0 ulp. atan(+-inf) = +-pi/2.
template <class V>
inline V atan(V x) {
  if constexpr (kSingle<V>)
    return in_double([](auto v) { return atan(v); }, x);
  else {
    // atan(a) = pi/2 + atan(-1/a) above tan(3 pi/8), pi/4 + atan((a - 1) / (a + 1)) above tan(pi/8).
    const V a = abs(x);
    const Mask<V> large = a > 0x1.3504f333f9de6p+1, middle = a > 0x1.a827999fcef34p-2;
    const V t = select(large, constant<V>(-1), select(middle, a - 1, a)) /
                select(large, a, select(middle, a + 1, constant<V>(1)));
    const V z = t * t;
    const V p = poly(z, -0.33333333333333331, 0.19999999999999815, -0.1428571428566201, 0.11111111105349715,
                     -0.090909087623743279, 0.076922966114537833, -0.066664288120067153, 0.058789708621524481,
                     -0.052307409406067713, 0.045528117489820205, -0.034599822357392056, 0.01631608730982987);  // 2^-60
    const V offset =
        select(large, constant<V>(0x1.921fb54442d18p+0), select(middle, constant<V>(0x1.921fb54442d18p-1), V{}));
    // The offset's own rounding error is proportional to it.
    return copysign(offset + fma(t * z, p, fma(offset, constant<V>(0x1.1a62633145c07p-54 / 0x1.921fb54442d18p+0), t)),
                    x);
  }
}

}  // namespace
}  // namespace chainrule
