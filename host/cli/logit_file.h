/* The base of a comparison on disk: what one model predicted for every scored token of a text.
 *
 * The file is a header, then a row for each scored token in the text's order. A row holds the log
 * probability of the token that came, exactly; the most likely token; and for every token of the
 * vocabulary how far its logit lies below the largest, in 16 bits: steps of the row's own range of
 * logits / 65535, kept as a float32. Reading gives logits again, right up to a constant and within
 *
 *     d = range / 130000       (half a step, and the rounding to float32)
 *
 * of the model's own. Softmax is taken of what was read, so what a comparison sees is a true
 * distribution p' near the model's p, and two bounds hold: KL(p' || p) <= d * d / 2, so a model
 * compared with itself comes out below 1e-7 for a range of 58; and KL(p' || q) differs from
 * KL(p || q) by at most that and (exp(2 d) - 1) times the mean of |log p - log q| over p, a part in
 * 1100 of it for the same range.
 *
 * Header and rows end with a checksum, a row's being of its place too: what is cut, changed or
 * moved is noticed. Numbers are little-endian, as everywhere Peridot runs. */
#ifndef CLI_LOGIT_FILE_H
#define CLI_LOGIT_FILE_H

#include "divergence.h"
#include "error.h"
#include "platform.h"

/* What two models must share to be compared. */
struct logit_file_key {
    uint64_t text; /* checksum of its tokens */
    uint32_t vocabulary, window, stride, scored;
};

/* What one row holds beside the logits. */
struct logit_row {
    double log_probability; /* of the token that came */
    uint32_t top;
};

uint64_t logit_file_text(const int32_t *tokens, size_t count);

/* ---- Writing ---- */

size_t logit_row_bytes(uint32_t vocabulary);
/* Fills in row `place` of a file with this key. */
void logit_row_write(const struct logit_file_key *key, uint32_t place, const struct logit_row *row,
                     const struct softmax *softmax, const float *logits, uint8_t *bytes);
/* False: a failed write. The rows follow, one after another. */
bool logit_file_begin(FILE *stream, const struct logit_file_key *key);

/* ---- Reading ---- */

struct logit_file {
    struct open_file file;
    struct logit_file_key key;
    const char *path;
};

/* Errors: FILE; FORMAT (no such file, damaged or incomplete); UNSUPPORTED (of another vocabulary,
 * text or window: which). */
peridot_result logit_file_open(const char *path, const struct logit_file_key *wanted,
                               struct logit_file *file, peridot_error *error);
/* Row `place` with its logits, [vocabulary]. Any number of threads at once. Errors: FILE,
 * FORMAT, HOST_MEMORY. */
peridot_result logit_file_row(const struct logit_file *file, uint32_t place, struct logit_row *row,
                              float *logits, peridot_error *error);
void logit_file_close(struct logit_file *file); /* accepts an all-zero record */

#endif
