// The sine and cosine of an angle in float32, for implicit_filter: errors are about an ulp.
#pragma once
#include <cuda_runtime.h>

#include <cmath>

namespace equiconv::cuda {

// Whether sine_and_cosine has this angle.
__device__ __forceinline__ bool is_near(float angle) { return fabsf(angle) < 32768.f; }  // not of NaN

// From the nearest multiple of pi / 2, which is subtracted in three parts, the first exactly. No branch, so
// those of several angles are made side by side, as sincosf's are not.
__device__ __forceinline__ void sine_and_cosine(float angle, float& sine, float& cosine) {
  const float turns = rintf(angle * 0.63661977f);
  float r = fmaf(turns, -1.57079637f, angle);
  r = fmaf(turns, 4.37113883e-8f, r);
  r = fmaf(turns, 1.71512451e-15f, r);
  const float u = r * r;
  const float s = fmaf(r * u, fmaf(fmaf(-1.9515217e-4f, u, 8.33216e-3f), u, -0.16666655f), r);
  const float c =
      fmaf(u * u, fmaf(fmaf(2.443308e-5f, u, -1.3887315e-3f), u, 0.041666646f), fmaf(u, -0.5f, 1.f));
  const int quarter = int(turns);
  sine = quarter & 1 ? c : s, cosine = quarter & 1 ? s : c;
  if (quarter & 2) sine = -sine;
  if ((quarter + 1) & 2) cosine = -cosine;
}

}  // namespace equiconv::cuda
