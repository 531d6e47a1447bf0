/* SPDX-License-Identifier: Apache-2.0
 *
 * What a call may ask: the energy of bands, and what else a vibration window is judged by.
 *
 * The mean is taken off first. Energies are one-sided and scaled so that all bins together are the mean square of the
 * windowed samples over that of the window: without a window, exactly rms * rms (Parseval).
 */
#include "fft.h"

typedef struct { double lo, hi, energy; } band;

static samples input;
static complex spectrum[SAMPLES_MOST];
static band bands[BANDS_MOST];

typedef struct { double mean, rms, peak; } moments;

static moments center(samples *s) {
    moments m = {0};
    double squares = 0;
    for (uint32_t i = 0; i < s->count; i++) m.mean += s->value[i];
    m.mean /= s->count;
    for (uint32_t i = 0; i < s->count; i++) {
        double v = s->value[i] -= m.mean, size = v < 0 ? -v : v;
        squares += v * v;
        if (size > m.peak) m.peak = size;
    }
    m.rms = __builtin_sqrt(squares / s->count);
    return m;
}

static uint32_t next_power_of_two(uint32_t n) {
    uint32_t power = 1;
    while (power < n) power *= 2;
    return power;
}

/* Lays the samples out under the window and fills up with zeros to n; gives the sum of the window's squares. */
static double lay_out(const samples *s, uint32_t n, bool hann) {
    double squares = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        double w = hann ? 0.5 - 0.5 * cos_turn(i, s->count) : 1;
        spectrum[i] = (complex){w * s->value[i], 0};
        squares += w * w;
    }
    for (uint32_t i = s->count; i < n; i++) spectrum[i] = (complex){0, 0};
    return squares;
}

static double bin_energy(uint32_t k, uint32_t n, double window_squares) {
    double both = spectrum[k].re * spectrum[k].re + spectrum[k].im * spectrum[k].im;
    return (k == 0 || k == n / 2 ? 1 : 2) * both / (n * window_squares);
}

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

static int32_t read_bands(const gw_args *args, double rate_hz, uint32_t *count) {
    gw_in items;
    *count = 0;
    if (gw_arg_value(args, "bands").type == GW_T_END) return GW_WRITTEN;
    GW_TRY(gw_arg_list(args, "bands", BANDS_MOST, &items, count));
    for (uint32_t i = 0; i < *count; i++) {
        gw_value head = gw_next(&items), lo = {0}, hi = {0};
        if (head.type == GW_T_ARRAY && head.len == 2) {
            lo = gw_next(&items);
            hi = gw_next(&items);
        }
        if (!gw_is_number(lo) || !gw_is_number(hi) || !(lo.f64 >= 0 && lo.f64 < hi.f64 && gw_is_finite(hi.f64)))
            return gw_bad_item("bands", i, "must be [from Hz, to Hz], from below to");
        if (lo.f64 >= rate_hz / 2) return gw_bad_item("bands", i, "begins above half of rate_hz: nothing is there");
        bands[i] = (band){.lo = lo.f64, .hi = hi.f64};
    }
    return GW_WRITTEN;
}

static int32_t read_window(const gw_args *args, bool *hann) {
    gw_value v = gw_arg_value(args, "window");
    *hann = v.type == GW_T_END || gw_is(v, "hann");
    return *hann || gw_is(v, "none") ? GW_WRITTEN : gw_bad_arg("window", "must be \"hann\" or \"none\"");
}

static int32_t read_unit(const gw_args *args, gw_value *unit) {
    *unit = gw_arg_value(args, "unit");
    if (unit->type == GW_T_END) return GW_WRITTEN;
    if (unit->type != GW_T_STR || unit->len > UNIT_BYTES || !gw_is_utf8(unit->text, unit->len))
        return gw_bad_arg("unit", "must be text of at most 64 bytes");
    return GW_WRITTEN;
}

/* ---- The answer -------------------------------------------------------------------------------------------------- */

static void write_number(gw_out *out, const char *name, double v) {
    gw_cstr(out, name);
    gw_f64(out, v);
}

/* Both are nil where the samples do not vary. */
static void write_shape(gw_out *out, moments m, double strongest, double peak_hz) {
    gw_key(out, "crest");
    if (m.rms > 0) gw_f64(out, m.peak / m.rms);
    else gw_nil(out);
    gw_key(out, "peak_hz");
    if (strongest > 0) gw_f64(out, peak_hz);
    else gw_nil(out);
}

static int32_t call(gw_out *out, gw_in in, uint32_t aux) {
    gw_args args;
    gw_value unit;
    uint32_t count;
    bool hann;
    GW_TRY(gw_args_read(&args, in));
    GW_TRY(read_samples(&input, &args));
    GW_TRY(read_bands(&args, input.rate_hz, &count));
    GW_TRY(read_window(&args, &hann));
    GW_TRY(read_unit(&args, &unit));

    moments m = center(&input);
    uint32_t n = next_power_of_two(input.count), strongest = 0;
    double squares = lay_out(&input, n, hann), most = 0;
    transform(spectrum, n);
    for (uint32_t k = 0; k <= n / 2; k++) {
        double energy = bin_energy(k, n, squares), hz = k * (input.rate_hz / n);
        /* The last bin belongs to a band that ends at it: there is nothing above. */
        for (uint32_t i = 0; i < count; i++)
            if (hz >= bands[i].lo && (hz < bands[i].hi || (k == n / 2 && hz <= bands[i].hi))) bands[i].energy += energy;
        if (k && energy > most) {
            most = energy;
            strongest = k;
        }
    }

    gw_map(out, unit.type == GW_T_STR ? 11 : 10);
    gw_key(out, "energies"); gw_array(out, count);
    for (uint32_t i = 0; i < count; i++) gw_f64(out, bands[i].energy);
    write_number(out, "mean", m.mean);
    write_number(out, "rms", m.rms);
    write_number(out, "peak", m.peak);
    write_shape(out, m, most, strongest * (input.rate_hz / n));
    write_number(out, "rate_hz", input.rate_hz);
    write_number(out, "bin_hz", input.rate_hz / n);
    gw_key(out, "bins"); gw_uint(out, n / 2 + 1);
    gw_key(out, "samples"); gw_uint(out, input.count);
    if (unit.type == GW_T_STR) { gw_key(out, "unit"); gw_str(out, unit.text, unit.len); }
    return GW_WRITTEN;
}

GW_CALLER(call)
