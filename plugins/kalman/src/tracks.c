/* SPDX-License-Identifier: Apache-2.0
 *
 * The tracks: a hash table for the way to a key, and a ring from the one used last to the one not used for longest.
 */
#include "kalman.h"

enum { BUCKETS = 16384, NONE = 0 };

/* Links are places in `nodes`; place 0 is the ring's own node, so that 0 also ends a chain. */
typedef struct {
    track track; /* first: a track's address is its node's */
    char key[KEY_MOST];
    uint16_t len;
    uint16_t chained;      /* next in the bucket, or next free */
    uint16_t newer, older; /* in the ring; the own node's `older` is the newest */
} node;

static node nodes[TRACKS_MOST + 1];
static uint16_t buckets[BUCKETS];
static uint16_t freed;
static uint32_t used, held; /* nodes ever used, tracks at present */

/* FNV-1a. Who names many keys of one bucket makes its own calls slow, by the length of a chain of 10,000. */
static uint32_t bucket_of(const char *key, uint32_t len) {
    uint32_t hash = 2166136261u;
    for (uint32_t i = 0; i < len; i++) hash = (hash ^ (uint8_t)key[i]) * 16777619u;
    return (hash ^ hash >> 16) % BUCKETS;
}

static uint16_t *link_to(const char *key, uint32_t len) {
    uint16_t *link = &buckets[bucket_of(key, len)];
    while (*link && !(nodes[*link].len == len && memcmp(nodes[*link].key, key, len) == 0)) link = &nodes[*link].chained;
    return link;
}

static void leave_ring(uint16_t place) {
    nodes[nodes[place].newer].older = nodes[place].older;
    nodes[nodes[place].older].newer = nodes[place].newer;
}
static void become_newest(uint16_t place) {
    uint16_t newest = nodes[0].older;
    nodes[place].newer = 0;
    nodes[place].older = newest;
    nodes[newest].newer = place;
    nodes[0].older = place;
}

static void drop(uint16_t *link) {
    uint16_t place = *link;
    *link = nodes[place].chained;
    leave_ring(place);
    nodes[place].chained = freed;
    freed = place;
    held--;
}

static uint16_t free_node(void) {
    if (held == TRACKS_MOST) {
        const node *oldest = &nodes[nodes[0].newer];
        drop(link_to(oldest->key, oldest->len));
    }
    if (!freed) return (uint16_t)++used;
    uint16_t place = freed;
    freed = nodes[place].chained;
    return place;
}

track *find_track(const char *key, uint32_t len) {
    uint16_t place = *link_to(key, len);
    return place ? &nodes[place].track : NULL;
}

track *take_track(const char *key, uint32_t len) {
    uint16_t place = *link_to(key, len);
    if (place) {
        leave_ring(place);
    } else {
        place = free_node();
        nodes[place] = (node){.len = (uint16_t)len};
        memcpy(nodes[place].key, key, len);
        /* Only now: making room may have changed the chain. */
        *link_to(key, len) = place;
        held++;
    }
    become_newest(place);
    return &nodes[place].track;
}

bool drop_track(const char *key, uint32_t len) {
    uint16_t *link = link_to(key, len);
    if (!*link) return false;
    drop(link);
    return true;
}

void drop_tracks(void) {
    memset(buckets, 0, sizeof buckets);
    nodes[0].older = nodes[0].newer = NONE;
    freed = NONE;
    used = held = 0;
}

uint32_t tracks_held(void) { return held; }

const track *next_track(const track *before, const char **key, uint32_t *len) {
    const node *n = &nodes[before ? ((const node *)before)->newer : nodes[0].newer];
    if (n == nodes) return NULL;
    *key = n->key;
    *len = n->len;
    return &n->track;
}
