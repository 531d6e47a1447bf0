/* SPDX-License-Identifier: Apache-2.0
 *
 * The filter of a value that wanders at random: state and measurement are the value itself. Source: Kalman, "A New
 * Approach to Linear Filtering and Prediction Problems", 1960, in one dimension.
 */
#include "kalman.h"

/* Seconds that the value had to wander in; 1 where either reading has no time, 0 for a reading that comes late. */
static double elapsed_s(const track *t, bool timed, double at) {
    if (!t->timed || !timed) return 1;
    return at > t->at ? (at - t->at) / 1000 : 0;
}

step advance(track *t, noise n, double value, bool timed, double at) {
    step s = {.gain = 1};
    if (t->known) {
        double predicted = t->variance + n.process * elapsed_s(t, timed, at);
        s.innovation = value - t->estimate;
        s.gain = predicted / (predicted + n.measurement);
        t->estimate += s.gain * s.innovation;
        t->variance = s.gain * n.measurement; /* (1 - gain) * predicted, without the cancellation */
    } else {
        t->estimate = value;
        t->variance = n.measurement;
        t->known = true;
    }
    if (timed && (!t->timed || at > t->at)) {
        t->at = at;
        t->timed = true;
    }
    s.estimate = t->estimate;
    s.variance = t->variance;
    return s;
}
