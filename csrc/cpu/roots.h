// Points of the unit circle as constants of the code. Computed while compiling: an object file of a higher
// capability must not run anything when the library is loaded, whatever the processor.
#pragma once

namespace {

struct CirclePoint {
  double cosine, sine;
};

// exp(2 pi i turns), each part rounded once.
constexpr CirclePoint circle_point(double turns) {
  constexpr long double kTwoPi = 6.283185307179586476925286766559L;
  // turns = eighths / 8 + rest, |rest| <= 1/16, all of it exact
  int eighths = 0;
  long double rest = turns;
  for (; rest > 1 / 16.0L; ++eighths) rest -= 1 / 8.0L;
  for (; rest < -1 / 16.0L; --eighths) rest += 1 / 8.0L;
  const long double angle = kTwoPi * rest;
  long double cosine = 0, sine = 0, term = 1;  // term = angle^n / n!
  for (int n = 0; n < 24; term *= angle / ++n) {
    const long double signed_term = n & 2 ? -term : term;
    (n & 1 ? sine : cosine) += signed_term;
  }
  constexpr long double kRootHalf = 0.707106781186547524400844362104849L;
  if (eighths & 1) {  // an eighth further
    const long double turned = kRootHalf * (cosine - sine);
    sine = kRootHalf * (cosine + sine), cosine = turned;
  }
  for (int quarters = (eighths & 7) / 2; quarters > 0; --quarters) {
    const long double turned = -sine;
    sine = cosine, cosine = turned;
  }
  return {double(cosine), double(sine)};
}

// The bits of i < size = 2^b in reversed order.
constexpr int reversed_bits(int i, int size) {
  int out = 0;
  for (int bit = 1; bit < size; bit *= 2) out = 2 * out + ((i & bit) != 0);
  return out;
}

}  // namespace
