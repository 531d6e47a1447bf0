/* SPDX-License-Identifier: Apache-2.0
 *
 * kalman.h - one-dimensional Kalman filters by key: what the source files share.
 */
#ifndef KALMAN_H
#define KALMAN_H

/* The saved state takes at most 10,000 * (128 + 32) bytes; so many rows [at, value] fit, too. */
#define GW_IN_BYTES (2u * 1024u * 1024u)
#define GW_OUT_BYTES (2u * 1024u * 1024u)
#include "gw1_args.h"

enum { TRACKS_MOST = 10000, KEY_MOST = 128, ROWS_MOST = 65536 };

/* Values, variances and times beyond it are refused, so that nothing that is computed of them overflows. */
#define NUMBER_MOST 1e100

/* What is known of one value. The same numbers stand in the saved state. */
typedef struct {
    double estimate, variance;
    double at; /* epoch ms of the latest reading that had a time */
    bool known, timed;
} track;

/* tracks.c: the tracks by key; the one that was not used for longest makes room */
track *find_track(const char *key, uint32_t len);
/* The track of a key, unknown where it is new. */
track *take_track(const char *key, uint32_t len);
bool drop_track(const char *key, uint32_t len);
void drop_tracks(void);
uint32_t tracks_held(void);
/* Walks from the one not used for longest; NULL behind the last. `key` and `len` are set. */
const track *next_track(const track *before, const char **key, uint32_t *len);

/* filter.c: one step of the filter */
typedef struct { double process, measurement; } noise;
typedef struct { double estimate, variance, innovation, gain; } step;
step advance(track *t, noise n, double value, bool timed, double at);

/* state.c: state over a reload */
int32_t save_state(gw_out *out);
int32_t load_state(gw_in state);

#endif
