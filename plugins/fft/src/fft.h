/* SPDX-License-Identifier: Apache-2.0
 *
 * fft.h - band energies of a window of samples: what the source files share.
 */
#ifndef FFT_H
#define FFT_H

/* A window as rows [at, value] takes at most 20 bytes a sample; the rest is bands and keys. */
#define GW_IN_BYTES (2u * 1024u * 1024u)
#define GW_OUT_BYTES (64u * 1024u)
#include "gw1_args.h"

enum { SAMPLES_MOST = 65536, SAMPLES_LEAST = 2, BANDS_MOST = 64, UNIT_BYTES = 64 };

/* samples.c: the window, from whichever form the arguments give it in */
typedef struct {
    double value[SAMPLES_MOST];
    uint32_t count;
    double rate_hz;
} samples;
int32_t read_samples(samples *s, const gw_args *args);

/* spectrum.c: the transform */
typedef struct { double re, im; } complex;

/* cos(2 pi part / whole), part < 2^32, whole > 0; right to the last bits. */
double cos_turn(uint64_t part, uint64_t whole);
double sin_turn(uint64_t part, uint64_t whole);
/* In place; n is a power of two up to SAMPLES_MOST. X[k] = sum over i of x[i] exp(-2 pi j i k / n). */
void transform(complex *x, uint32_t n);

#endif
