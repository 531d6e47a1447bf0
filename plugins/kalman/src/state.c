/* SPDX-License-Identifier: Apache-2.0
 *
 * State over a reload: {version: 1, tracks: [[key, estimate, variance, at or nil], ...]}, the one not used for longest
 * first. A later format takes another number; this one reads its own alone.
 */
#include "kalman.h"

enum { FORMAT = 1 };

int32_t save_state(gw_out *out) {
    const char *key;
    uint32_t len;
    gw_map(out, 2);
    gw_key(out, "version"); gw_uint(out, FORMAT);
    gw_key(out, "tracks"); gw_array(out, tracks_held());
    for (const track *t = next_track(NULL, &key, &len); t; t = next_track(t, &key, &len)) {
        gw_array(out, 4);
        gw_str(out, key, len);
        gw_f64(out, t->estimate);
        gw_f64(out, t->variance);
        if (t->timed) gw_f64(out, t->at);
        else gw_nil(out);
    }
    return GW_WRITTEN;
}

static bool within(gw_value v, double least) { return gw_is_number(v) && v.f64 >= least && v.f64 <= NUMBER_MOST; }

static bool load_track(gw_in *in) {
    gw_value head = gw_next(in);
    if (head.type != GW_T_ARRAY || head.len != 4) return false;
    gw_value key = gw_next(in), estimate = gw_next(in), variance = gw_next(in), at = gw_next(in);
    if (key.type != GW_T_STR || key.len < 1 || key.len > KEY_MOST) return false;
    if (!within(estimate, -NUMBER_MOST) || !within(variance, 0)) return false;
    if (at.type != GW_T_NIL && !within(at, -NUMBER_MOST)) return false;
    bool timed = at.type != GW_T_NIL;
    *take_track(key.text, key.len) =
        (track){.estimate = estimate.f64, .variance = variance.f64, .at = at.f64, .known = true, .timed = timed};
    return true;
}

int32_t load_state(gw_in state) {
    gw_args saved;
    gw_in items;
    uint32_t count;
    drop_tracks();
    GW_TRY(gw_args_read(&saved, state));
    gw_value version = gw_arg_value(&saved, "version");
    if (version.type != GW_T_UINT || version.uint != FORMAT)
        return gw_error(GW_UNSUPPORTED, "version: the saved state is of another format; filters start anew");
    GW_TRY(gw_arg_list(&saved, "tracks", TRACKS_MOST, &items, &count));
    for (uint32_t i = 0; i < count; i++)
        if (!load_track(&items)) {
            drop_tracks();
            return gw_bad_item("tracks", i, "must be [key, estimate, variance, at]; filters start anew");
        }
    return GW_DROP; /* 0: taken */
}
