/* What the host and the shaders share: push constants, the session block, plane layouts,
 * specialisation constants. Included by C and, through shaders/common.glsl, by GLSL. In C an
 * ADDRESS is a device address; in GLSL it is the buffer_reference type named. All structs are laid
 * out alike under C and std430: 8-byte members first. */
#ifndef PERIDOT_ABI_H
#define PERIDOT_ABI_H

#ifdef PERIDOT_GLSL
#define ADDRESS(type) type
#define U32 uint
#define F32 float
#else
#include <stdint.h>
#define ADDRESS(type) uint64_t
#define U32 uint32_t
#define F32 float
#endif

/* ---- Sizes ---- */

/* Weight rows and KV rows are padded with zeros to a multiple of this many
 * elements, so that every load is a whole 16 bytes in any precision. */
#define ROW_ALIGNMENT 8
#define ACTIVATION_ALIGNMENT 32 /* the same for activations, which also meet weights in blocks */
#define KV_CHUNK 512            /* positions in one KV chunk */
#define KV_CHUNKS_MAX 64        /* 32768 positions */
#define STOP_TOKENS_MAX 8
#define BATCH_MAX 8      /* sessions that decode in one pass */
#define SPLITS_MAX 64    /* parts that decode attention cuts the context into */
#define SAMPLE_GROUPS 64 /* workgroups, and so partial results, of each pass over the logits */
#define HISTOGRAM_BINS 256

/* ---- Specialisation constants ---- */

/* Invocations in a workgroup; in subgroup variants also the subgroup size */
#define SPEC_WORKGROUP 0
#define SPEC_ROWS 1     /* weight rows (even) that one workgroup makes */
#define SPEC_COLUMNS 2  /* activation rows (tokens) that one workgroup handles */
#define SPEC_HEAD_DIM 3 /* head_dim padded to ROW_ALIGNMENT */
#define SPEC_GROUP 4    /* query heads that share a KV head */
#define SPEC_KV_TYPE 5  /* KV_F16, KV_F32 or KV_Q8 */
/* 1: each row of the pass is another session's, and its sums are made as in a pass of one row */
#define SPEC_BATCH 6
#define SPEC_COUNT 7

/* ---- The session block ---- */

/* All that changes from token to token; kernels read it, the last kernel of a step advances it, and
 * the header that precedes a prefill chunk writes its first part. */
struct session_block {
    /* The pass at hand: rows `position` to `position + rows - 1` of the token buffer. */
    U32 position;
    U32 rows;
    U32 done;    /* set by an end-of-turn token: every kernel returns at once */
    U32 sampled; /* tokens sampled since the session began: the ring's write index */
    /* Decode attention: `splits` parts of `split_length` positions; also the indirect grid. */
    U32 attention_grid[3]; /* splits, kv_heads, rows */
    U32 split_length;
    U32 split_target; /* how many workgroups the device wants */
    U32 context;      /* positions the session may hold */
    U32 kv_heads;
    U32 reserved;
    /* Sampler */
    F32 temperature;        /* 0: greedy */
    F32 top_p;              /* 1 or more: off */
    F32 min_p;              /* 0: off */
    F32 repetition_penalty; /* 1: off */
    U32 top_k;              /* 0: off */
    U32 penalty_window;
    U32 stop_from; /* first position at which a stop token may be sampled */
    U32 stop_count;
    U32 seed[2];
    U32 stop_tokens[STOP_TOKENS_MAX];
    /* Where position p's keys and values are: kv_chunks[p / KV_CHUNK]; in a batch's block, where
     * those of row r's position are: kv_chunks[r]. */
    ADDRESS(Quads) kv_chunks[KV_CHUNKS_MAX];
    /* A batch's block alone: row r of the pass, the token of session r at its position. The host
     * writes the addresses of sessions and logits, batch_rows.comp the rest. */
    ADDRESS(Session) row_session[BATCH_MAX];
    ADDRESS(Floats) row_logits[BATCH_MAX]; /* [vocabulary] */
    U32 row_position[BATCH_MAX];           /* NO_POSITION: that session is done */
};
#define NO_POSITION 0xffffffffu

/* One sampled token, in the host-visible ring at index (sampled % RING_CAPACITY). */
struct ring_entry {
    U32 position; /* of the sampled token */
    U32 token;
    F32 log_probability; /* natural log, under the softmax of the raw logits */
    U32 done;
};
#define RING_CAPACITY 256

/* ---- The KV cache ---- */

/* A KV chunk is [layer][K then V][kv_head][KV_CHUNK] rows of padded head_dim elements. Keys are
 * kept in pair order: element 2i is dimension i, 2i + 1 is dimension i + head_dim/2 (what RoPE
 * rotates together); queries and the rows of W_q and W_k have the same order, so dot products are
 * what they were.
 *
 * A row holds its elements as float16 or float32 or, in q8, as signed bytes padded to whole quads,
 * then a float16 scale for each KV_BLOCK of them, padded to whole quads: an element is its byte
 * times its block's scale. */
#define KV_F16 0 /* as peridot_kv has them */
#define KV_F32 1
#define KV_Q8 2
#define KV_BLOCK 32

/* Quads of a row of `dim` elements in q8 without its scales, and of a whole row. */
#define KV_CODE_QUADS(dim) (((dim) + 15) / 16)
#define KV_ROW_QUADS(type, dim)                                                                    \
    ((type) == KV_F16   ? (dim) / 8                                                                \
     : (type) == KV_F32 ? (dim) / 4                                                                \
                        : KV_CODE_QUADS(dim) + ((dim) + 8 * KV_BLOCK - 1) / (8 * KV_BLOCK))

/* ---- Weights ---- */

/* A tensor on the device is one or several shards by rows, each [row_count][stride] quads (16
 * bytes); what a row holds is said in host/device_rows.h. Rows of paired tensors are interleaved on
 * upload, so that a workgroup's two rows are neighbours. */
/* W_qkv: rows 2p, 2p + 1 of a head are dimensions p and p + head_dim/2 for Q and K; V keeps its
 * order. */
/* W_gate_up: row 2r is gate row r, row 2r + 1 is up row r. */
/* W_o's columns are padded head by head: [heads][padded head_dim]. */

/* ---- Quantised activations ---- */

/* A row of activations in eight bits has blocks of 32, as weights have steps: first all blocks'
 * codes, signed bytes in -127 to 127, two quads a block; then for each block the float32 scale d,
 * of which an element is code * d, and a word with the sums of the codes of its first and its last
 * 16 elements, as int16, the first one low. Both planes are padded to whole quads. */
#define QUANTISED_BLOCK 32
#define QUANTISED_QUADS(blocks) (2 * (blocks) + ((blocks) + 1) / 2)

/* ---- Push constants ---- */

/* embed.comp: x[t][i] = table[tokens[position + t]][i] * scale, for tokens in this shard. */
struct embed_constants {
    ADDRESS(Quads) table;
    ADDRESS(Words) tokens;
    ADDRESS(Floats) x; /* [rows][x_stride] */
    ADDRESS(Session) session;
    U32 row_begin; /* the shard's first token id */
    U32 row_count;
    U32 stride;   /* of a table row, in quads */
    U32 steps;    /* of a table row: of 32 elements in types that have blocks, of 8 in others */
    U32 columns;  /* d_model */
    U32 x_stride; /* in floats */
    F32 scale;    /* sqrt(d_model) */
};

/* rmsnorm.comp: y[t][i] = x[t][i] / sqrt(mean(x[t]^2) + epsilon) * multiplier[i]; padding stays
 * zero. */
struct rmsnorm_constants {
    ADDRESS(Floats) x;          /* [rows][stride] */
    ADDRESS(Floats) multiplier; /* [stride], 1 + weight; zero in the padding */
    ADDRESS(Floats) y;          /* [rows][stride] */
    ADDRESS(Session) session;
    U32 columns; /* d_model */
    U32 stride;  /* in floats */
    F32 epsilon;
};

/* capture.comp: rows of x to where their positions are in y. */
struct capture_constants {
    ADDRESS(Floats) x; /* [rows][stride] */
    ADDRESS(Floats) y; /* [context][stride] */
    ADDRESS(Session) session;
    U32 stride; /* in floats */
};

/* quantise.comp: rows of x to quantised ones, and RMSNorm before that in quantise_norm. */
struct quantise_constants {
    ADDRESS(Floats) x;          /* [rows][x_stride], zero in the padding */
    ADDRESS(Floats) multiplier; /* [32 * blocks], 1 + weight; quantise_norm only */
    ADDRESS(Quads) y;           /* [rows][y_stride] */
    ADDRESS(Session) session;
    U32 columns;  /* d_model, the norm's divisor */
    U32 blocks;   /* of a row */
    U32 x_stride; /* in floats */
    U32 y_stride; /* in words, a multiple of 4 */
    F32 epsilon;
    U32 last_row; /* 1 = only the pass's last row, in its place; 0 = all rows */
};

/* matvec.comp, matmul.comp and dot_tile.comp: y = epilogue(W x). matvec also norms its input (see
 * there). */
struct project_constants {
    ADDRESS(Quads) weights; /* this shard: [row_count][stride] */
    /* [rows][x_stride], zero-padded to the weights' padded columns; Floats, or quantised for the
     * dot_* kernels */
    ADDRESS(Activations) x;
    ADDRESS(Floats) multiplier; /* RMSNorm's 1 + weight, [padded columns]; matvec only */
    ADDRESS(Floats) rope;       /* [position][head_dim/2] of (cos, sin); QKV epilogue only */
    ADDRESS(Floats) y;          /* [rows][y_stride] */
    ADDRESS(Session) session;
    U32 stride;    /* of a weight row, in quads */
    U32 steps;     /* of a weight row, as in embed_constants */
    U32 columns;   /* d_model, the norm's divisor */
    U32 row_begin; /* the shard's first row in the whole tensor; even */
    U32 row_count; /* rows in the shard; even, or odd only in the HEAD epilogue */
    U32 x_stride;  /* in words, a multiple of 4 */
    U32 y_stride;  /* in floats */
    F32 epsilon;
    U32 heads; /* QKV: rows are [heads | kv_heads | kv_heads][head_dim] */
    U32 kv_heads;
    U32 head_dim; /* unpadded */
    U32 kv_layer; /* QKV: this layer's K in a chunk, in quads from the chunk's address; in q8 keys
                     and values go behind the queries in y instead */
    U32 last_row; /* HEAD: 1 = only the pass's last row, written to y row 0; 0 = all rows */
};

/* kv_store.comp: keys and values to the cache, in q8. */
struct kv_store_constants {
    ADDRESS(Floats) made; /* [rows][stride]: [heads | kv_heads | kv_heads][padded head_dim] */
    ADDRESS(Session) session;
    U32 heads;
    U32 kv_heads;
    U32 kv_layer; /* as in project_constants */
    U32 stride;   /* in floats */
};

/* attention_decode.comp, attention_join.comp, attention_prefill.comp */
struct attention_constants {
    ADDRESS(Floats) query; /* [rows][query_stride]: [heads][padded head_dim], pair order */
    /* decode: [rows][heads][SPLITS_MAX][padded head_dim + 8]: unnormalised output, then max and sum
     * at [padded head_dim], [padded head_dim + 1] */
    ADDRESS(Floats) partial;
    ADDRESS(Floats) result; /* [rows][stride]: [heads][padded head_dim] */
    ADDRESS(Session) session;
    U32 heads;
    U32 kv_heads;
    U32 kv_layer;     /* this layer's K in a chunk, in quads from the chunk's address */
    U32 query_stride; /* in floats */
    U32 stride;       /* in floats */
    F32 scale;        /* 1 / sqrt(head_dim) */
};

/* The passes of sample.comp over the logits of the last row (see there). */
struct sample_constants {
    ADDRESS(Floats) logits; /* [vocabulary], untouched */
    ADDRESS(Floats) scores; /* [vocabulary]: logits after penalty and suppression */
    ADDRESS(Words) marks;   /* [ceil(vocabulary / 32)] bits: recent tokens; zero between steps */
    ADDRESS(Words) mask;    /* [ceil(vocabulary / 32)] bits: may be sampled; sample_score_masked */
    ADDRESS(Words) work;    /* [WORK_WORDS], see below */
    ADDRESS(Words) tokens;  /* [context + 1] token ids by position */
    ADDRESS(Ring) ring;     /* [RING_CAPACITY] */
    ADDRESS(Session) session;
    U32 vocabulary;
    U32 level;     /* 0..3: which byte of the key, from the top, a histogram pass refines */
    U32 criterion; /* 0: top-k, 1: top-p */
};

/* batch_rows.comp */
struct batch_constants {
    ADDRESS(Session) session; /* the batch's */
};

/* Offsets in words within the sampler's work buffer, and its size. First one word for each group of
 * a pass: the raw logits' maximum (float bits) and sum of exp(l - max), the same of the scores, the
 * best draw's value and its token. Then for each criterion the cut: key, last id kept, unused; the
 * search for it, [5 levels]: prefix, count, mass, unused; and [4 levels] of histograms, whose bins
 * are a count and a mass of three words. */
#define WORK_PARTIAL_MAX 0
#define WORK_PARTIAL_SUM (WORK_PARTIAL_MAX + SAMPLE_GROUPS)
#define WORK_SCORE_MAX (WORK_PARTIAL_SUM + SAMPLE_GROUPS)
#define WORK_SCORE_SUM (WORK_SCORE_MAX + SAMPLE_GROUPS)
#define WORK_BEST_VALUE (WORK_SCORE_SUM + SAMPLE_GROUPS)
#define WORK_BEST_ID (WORK_BEST_VALUE + SAMPLE_GROUPS)
#define WORK_CUT (WORK_BEST_ID + SAMPLE_GROUPS)
#define WORK_SEARCH (WORK_CUT + 2 * 8)
#define WORK_HISTOGRAM (WORK_SEARCH + 2 * 5 * 4)
#define WORK_WORDS (WORK_HISTOGRAM + 2 * 4 * HISTOGRAM_BINS * 4)

#endif
