/* SPDX-License-Identifier: Apache-2.0
 *
 * The discrete Fourier transform by halves (Cooley and Tukey, 1965), and the sines it needs: there is no libm here.
 */
#include "fft.h"

#define QUARTER_PI 0.78539816339744830962

/* Taylor's series for 0 <= x <= pi/4, where 9 terms are right to less than half a unit of the last place. */
static double cos_small(double x) {
    double square = x * x, sum = 1;
    for (uint32_t i = 18; i; i -= 2) sum = 1 - sum * square / (double)(i * (i - 1));
    return sum;
}
static double sin_small(double x) {
    double square = x * x, sum = 1;
    for (uint32_t i = 18; i; i -= 2) sum = 1 - sum * square / (double)(i * (i + 1));
    return x * sum;
}

double cos_turn(uint64_t part, uint64_t whole) {
    uint64_t eighths = part % whole * 8, octant = eighths / whole, rest = eighths % whole;
    if (octant & 1) rest = whole - rest;
    double x = (double)rest / (double)whole * QUARTER_PI;
    double v = ((octant + 1) & 2) ? sin_small(x) : cos_small(x);
    return octant >= 2 && octant < 6 ? -v : v;
}

double sin_turn(uint64_t part, uint64_t whole) { return cos_turn(4 * part + 3 * whole, 4 * whole); }

static complex twiddle[SAMPLES_MOST / 2]; /* exp(-2 pi j i / twiddles) */
static uint32_t twiddles;                 /* the length that they are for */

static void make_twiddles(uint32_t n) {
    if (twiddles == n) return;
    for (uint32_t i = 0; i < n / 2; i++) twiddle[i] = (complex){cos_turn(i, n), -sin_turn(i, n)};
    twiddles = n;
}

static void reverse_order(complex *x, uint32_t n) {
    for (uint32_t i = 0, other = 0; i < n; i++) {
        if (i < other) {
            complex kept = x[i];
            x[i] = x[other];
            x[other] = kept;
        }
        uint32_t bit = n >> 1;
        for (; bit && other & bit; bit >>= 1) other ^= bit;
        other |= bit;
    }
}

void transform(complex *x, uint32_t n) {
    make_twiddles(n);
    reverse_order(x, n);
    for (uint32_t half = 1; half < n; half *= 2)
        for (uint32_t start = 0; start < n; start += 2 * half)
            for (uint32_t i = 0; i < half; i++) {
                complex w = twiddle[i * (n / 2 / half)], *a = &x[start + i], *b = a + half;
                complex odd = {w.re * b->re - w.im * b->im, w.re * b->im + w.im * b->re};
                *b = (complex){a->re - odd.re, a->im - odd.im};
                *a = (complex){a->re + odd.re, a->im + odd.im};
            }
}
