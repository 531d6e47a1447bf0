/* SPDX-License-Identifier: Apache-2.0
 *
 * gw1_asked.h - what a device was asked and did not answer yet, for protocols whose frames carry no serial.
 *
 * Owns a table of open questions: an encoder notes a command's serial under what the answer will show of it (the
 * device's address and a function code, say), a decoder finds it there and reports `reply_to`. Knows no protocol.
 *
 * Of one key there is one question: such devices are asked one thing at a time, so a new question takes the place of
 * one that was never answered. (The host encodes a command once on trial, under another serial, before it sends it:
 * that is the same rule.) Where the table is full, the question that waits longest is forgotten: its command times out.
 */
#ifndef GW1_ASKED_H
#define GW1_ASKED_H

#include "gw1.h"

enum {
    GW_ASKED_MOST = 512,    /* open questions over all devices of a plugin */
    GW_ASKED_KEY_BYTES = 72 /* the longest device id, and a few bytes beside it */
};

typedef struct {
    uint8_t key[GW_ASKED_KEY_BYTES];
    uint32_t len;    /* 0: free */
    uint32_t serial; /* of the command */
    uint32_t detail; /* what the plugin wants to see again in the answer, or know of the question */
    uint64_t order;
} gw_asked;

GW_SHARED gw_asked gw_asked_table[GW_ASKED_MOST];
GW_SHARED uint64_t gw_asked_order;

/* The key of a device and a function; 0 (which is never found or noted) where the device's id is too long for one. */
GW_FN uint32_t gw_asked_key(uint8_t key[GW_ASKED_KEY_BYTES], const void *device, uint32_t len, uint8_t function) {
    if (len >= GW_ASKED_KEY_BYTES) return 0;
    memcpy(key, device, len);
    key[len] = function;
    return len + 1;
}

/* The open question of a key, or NULL. */
GW_FN gw_asked *gw_asked_find(const uint8_t *key, uint32_t len) {
    for (uint32_t i = 0; i < GW_ASKED_MOST; i++) {
        gw_asked *one = &gw_asked_table[i];
        if (len && one->len == len && memcmp(one->key, key, len) == 0) return one;
    }
    return NULL;
}

/* Note a question; a key that is too long is not noted, and its command times out. */
GW_FN void gw_asked_note(const uint8_t *key, uint32_t len, uint32_t serial, uint32_t detail) {
    if (len == 0 || len > GW_ASKED_KEY_BYTES) return;
    gw_asked *place = gw_asked_find(key, len);
    for (uint32_t i = 0; !place && i < GW_ASKED_MOST; i++)
        if (gw_asked_table[i].len == 0) place = &gw_asked_table[i];
    if (!place) {
        place = gw_asked_table;
        for (uint32_t i = 1; i < GW_ASKED_MOST; i++)
            if (gw_asked_table[i].order < place->order) place = &gw_asked_table[i];
    }
    *place = (gw_asked){.len = len, .serial = serial, .detail = detail, .order = ++gw_asked_order};
    memcpy(place->key, key, len);
}

/* The answer came. */
GW_FN void gw_asked_forget(gw_asked *one) { if (one) one->len = 0; }

#endif
