#include "tokenizer.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81" /* U+2581 stands for a space in pieces */
#define UNKNOWN_SURFACE " \xe2\x81\x87 "
#define PIECE_LENGTH_MAX 1024 /* bounds the recursion and the search at each place of a text */
#define TEXT_LENGTH_MAX (INT32_MAX / 4)

struct entry {
    uint32_t text; /* offset into texts */
    uint32_t length;
    uint32_t surface, surface_length; /* what it adds to a text */
    float score;
    uint8_t type;
    bool reserved; /* not to be found in typed text */
};

/* A trie of the user-defined pieces, for the longest match at a place. */
struct trie_node {
    uint32_t child, sibling; /* 0: none */
    int32_t id;              /* -1: none ends here */
    char byte;
};

struct tokenizer {
    struct entry *entries;
    uint32_t count;
    char *texts;
    uint32_t *table; /* open addressing: id + 1, or 0 */
    uint32_t table_mask;
    struct trie_node *trie;
    uint32_t trie_count;
    int32_t bytes[256]; /* ids of the byte pieces, -1: none */
    bool byte_fallback;
    bool has_unused; /* pieces that merging passes through but no text becomes */
    struct tokenizer_specials specials;
};

/* ---- Lists ---- */

bool token_list_add(struct token_list *list, int32_t id) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
        if (!ids)
            return false;
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return true;
}

void token_list_free(struct token_list *list) {
    free(list->ids);
    *list = (struct token_list){0};
}

/* ---- Looking pieces up ---- */

static uint32_t hash(const char *text, size_t length) {
    uint32_t value = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < length; i++)
        value = (value ^ (uint8_t)text[i]) * 16777619u;
    return value ^ value >> 15;
}

/* The place in the table of a text, or of the hole where it would go. */
static uint32_t slot_of(const struct tokenizer *t, const char *text, size_t length) {
    uint32_t slot = hash(text, length) & t->table_mask;
    while (t->table[slot]) {
        const struct entry *entry = &t->entries[t->table[slot] - 1];
        if (entry->length == length && memcmp(t->texts + entry->text, text, length) == 0)
            break;
        slot = (slot + 1) & t->table_mask;
    }
    return slot;
}

static int32_t find(const struct tokenizer *t, const char *text, size_t length) {
    return (int32_t)t->table[slot_of(t, text, length)] - 1;
}

int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *piece) {
    return find(tokenizer, piece, strlen(piece));
}

enum piece_type tokenizer_type(const struct tokenizer *tokenizer, int32_t id) {
    return (enum piece_type)tokenizer->entries[id].type;
}

/* Pieces that text can become: not control, unknown or byte pieces, whose names are no text. */
static bool is_text(const struct entry *entry) {
    return entry->type == PIECE_NORMAL || entry->type == PIECE_USER_DEFINED ||
           entry->type == PIECE_UNUSED;
}

/* ---- Making one ---- */

static bool equals(const struct piece *piece, const char *text) {
    return piece->length == strlen(text) && memcmp(piece->text, text, piece->length) == 0;
}

bool tokenizer_is_reserved(const struct piece *piece) {
    static const char *const names[] = {"<start_of_turn>", "<end_of_turn>", "<mask>", "<2mass>",
                                        "[@BOS@]"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (equals(piece, names[i]))
            return true;
    if (piece->length < 9 || memcmp(piece->text, "<unused", 7) != 0)
        return false;
    size_t at = 7;
    while (at < piece->length && piece->text[at] >= '0' && piece->text[at] <= '9')
        at++;
    return at > 7 && at + 1 == piece->length && piece->text[at] == '>';
}

/* The piece's text with each U+2581 as a space. */
static size_t write_surface(const char *text, size_t length, char *out) {
    size_t written = 0;
    for (size_t i = 0; i < length;) {
        bool space = length - i >= 3 && memcmp(text + i, SPACE, 3) == 0;
        out[written++] = space ? ' ' : text[i];
        i += space ? 3 : 1;
    }
    return written;
}

static bool is_utf8(const char *text, size_t length) {
    size_t at = 0, size = 1;
    for (; at < length && size; at += size)
        size = utf8_sequence(text + at, length - at);
    return size > 0;
}

/* The byte that a piece named <0x00> to <0xFF> stands for, or -1. */
static int byte_value(const struct piece *piece) {
    static const char digits[] = "0123456789ABCDEF";
    if (piece->length != 6 || memcmp(piece->text, "<0x", 3) != 0 || piece->text[5] != '>')
        return -1;
    const char *high = memchr(digits, piece->text[3], 16),
               *low = memchr(digits, piece->text[4], 16);
    return high && low ? (int)(16 * (high - digits) + (low - digits)) : -1;
}

/* What is wrong with one piece by itself, or NULL. */
static const char *fault(const struct piece *piece, bool byte_fallback) {
    if (piece->length == 0)
        return "is empty";
    if (piece->length > PIECE_LENGTH_MAX)
        return "is longer than 1024 bytes";
    if (!is_utf8(piece->text, piece->length))
        return "is not valid UTF-8";
    if (piece->score != piece->score)
        return "has a score that is not a number";
    if (piece->type < PIECE_NORMAL || piece->type > PIECE_BYTE)
        return "has a type that SentencePiece does not define";
    if (piece->type == PIECE_BYTE && !byte_fallback)
        return "is a byte piece, but byte_fallback is off";
    if (piece->type == PIECE_BYTE && byte_value(piece) < 0)
        return "is a byte piece, but is not named <0x00> to <0xFF>";
    return NULL;
}

/* Writes what the piece adds to a text. */
static size_t write_piece_surface(const struct sentencepiece_model *model,
                                  const struct piece *piece, char *out) {
    switch (piece->type) {
    case PIECE_CONTROL:
        return 0;
    case PIECE_BYTE:
        *out = (char)byte_value(piece);
        return 1;
    case PIECE_UNKNOWN:
        memcpy(out, model->unk_surface, model->unk_surface_length);
        return model->unk_surface_length;
    default:
        return write_surface(piece->text, piece->length, out);
    }
}

/* Copies a checked piece into the tables; `*used` counts the bytes of texts. */
static peridot_result add_piece(struct tokenizer *t, const struct sentencepiece_model *model,
                                uint32_t id, uint32_t *used, const char *name,
                                peridot_error *error) {
    const struct piece *piece = &model->pieces[id];
    uint32_t length = (uint32_t)piece->length;
    uint32_t slot = slot_of(t, piece->text, length);
    if (t->table[slot])
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: piece %u is the same as piece %u", name, id,
                    t->table[slot] - 1);
    t->table[slot] = id + 1;
    memcpy(t->texts + *used, piece->text, length);
    t->entries[id] = (struct entry){
        .text = *used,
        .length = length,
        .surface = *used + length,
        .surface_length = (uint32_t)write_piece_surface(model, piece, t->texts + *used + length),
        .score = piece->score,
        .type = (uint8_t)piece->type,
        .reserved = piece->type == PIECE_USER_DEFINED && tokenizer_is_reserved(piece)};
    *used += length + t->entries[id].surface_length;
    if (piece->type == PIECE_BYTE)
        t->bytes[byte_value(piece)] = (int32_t)id;
    t->has_unused = t->has_unused || piece->type == PIECE_UNUSED;
    return PERIDOT_OK;
}

/* The child of a node for a byte, made if `make`; 0: none. */
static uint32_t trie_child(struct trie_node *trie, uint32_t *count, uint32_t node, char byte,
                           bool make) {
    uint32_t child = trie[node].child;
    while (child && trie[child].byte != byte)
        child = trie[child].sibling;
    if (child || !make)
        return child;
    child = (*count)++;
    trie[child] = (struct trie_node){0, trie[node].child, -1, byte};
    trie[node].child = child;
    return child;
}

static bool build_trie(struct tokenizer *t) {
    size_t nodes = 1;
    for (uint32_t i = 0; i < t->count; i++)
        if (t->entries[i].type == PIECE_USER_DEFINED)
            nodes += t->entries[i].length;
    t->trie = malloc(nodes * sizeof *t->trie);
    if (!t->trie)
        return false;
    t->trie[0] = (struct trie_node){0, 0, -1, 0};
    t->trie_count = 1;
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t node = 0;
        if (t->entries[i].type != PIECE_USER_DEFINED)
            continue;
        for (uint32_t j = 0; j < t->entries[i].length; j++)
            node =
                trie_child(t->trie, &t->trie_count, node, t->texts[t->entries[i].text + j], true);
        t->trie[node].id = (int32_t)i;
    }
    return true;
}

/* First every piece is checked, then every one added. */
struct tokenizer_making {
    struct tokenizer *tokenizer;
    struct sentencepiece_model model; /* the pieces and texts are the caller's */
    const char *name;
    int32_t unknown;
    uint64_t characters; /* that the tables must hold */
    uint32_t checked, added, used;
};

/* Everything about a piece that does not need the tables. */
static peridot_result check_piece(struct tokenizer_making *making, uint32_t id,
                                  peridot_error *error) {
    const struct piece *piece = &making->model.pieces[id];
    const char *what = fault(piece, making->model.byte_fallback);
    if (what)
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: piece %u %s", making->name, id, what);
    if (piece->type == PIECE_UNKNOWN && making->unknown >= 0)
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: pieces %d and %u are both the unknown piece",
                    making->name, making->unknown, id);
    if (piece->type == PIECE_UNKNOWN)
        making->unknown = (int32_t)id;
    making->characters += 2 * (uint64_t)piece->length;
    return PERIDOT_OK;
}

static peridot_result check_all(const struct tokenizer_making *making, peridot_error *error) {
    const struct sentencepiece_model *model = &making->model;
    if (making->unknown < 0)
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: there is no unknown piece", making->name);
    if (model->unk_surface_length > PIECE_LENGTH_MAX ||
        !is_utf8(model->unk_surface, model->unk_surface_length))
        return fail(error, PERIDOT_ERROR_FORMAT, "%s: unk_surface is no short UTF-8 text",
                    making->name);
    if (making->characters > UINT32_MAX || model->count > INT32_MAX / 4)
        return fail(error, PERIDOT_ERROR_UNSUPPORTED, "%s: its pieces are too many or too long",
                    making->name);
    return PERIDOT_OK;
}

static bool allocate(struct tokenizer *t, uint32_t count, uint64_t characters) {
    uint32_t size = 16;
    while (size < 2 * count)
        size *= 2;
    t->count = count;
    t->table_mask = size - 1;
    t->entries = calloc(count, sizeof *t->entries);
    t->texts = malloc(characters);
    t->table = calloc(size, sizeof *t->table);
    return t->entries && t->texts && t->table;
}

/* Like the SentencePiece library, which knows no such id where the piece is not a control piece. */
static peridot_result find_specials(struct tokenizer *t, const struct sentencepiece_model *model,
                                    int32_t unknown, const char *name, peridot_error *error) {
    int32_t ids[] = {model->bos, model->eos, model->pad};
    for (int i = 0; i < 3; i++) {
        if (ids[i] >= 0 && (uint32_t)ids[i] >= t->count)
            return fail(error, PERIDOT_ERROR_FORMAT,
                        "%s: a special id (%d) lies beyond the %u pieces", name, ids[i], t->count);
        if (ids[i] < 0 || t->entries[ids[i]].type != PIECE_CONTROL)
            ids[i] = -1;
    }
    t->specials = (struct tokenizer_specials){.bos = ids[0],
                                              .eos = ids[1],
                                              .pad = ids[2],
                                              .unk = unknown,
                                              .start_of_turn = tokenizer_find(t, "<start_of_turn>"),
                                              .end_of_turn = tokenizer_find(t, "<end_of_turn>")};
    return PERIDOT_OK;
}

peridot_result tokenizer_begin(const struct sentencepiece_model *model, const char *name,
                               struct tokenizer_making **out, peridot_error *error) {
    struct tokenizer_making *making = calloc(1, sizeof *making);
    *out = making;
    if (making)
        making->tokenizer = calloc(1, sizeof *making->tokenizer);
    if (!making || !making->tokenizer)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", name);
    making->model = *model;
    if (!model->unk_surface) {
        making->model.unk_surface = UNKNOWN_SURFACE;
        making->model.unk_surface_length = sizeof UNKNOWN_SURFACE - 1;
    }
    making->name = name;
    making->unknown = -1;
    making->characters = 1 + making->model.unk_surface_length;
    for (int i = 0; i < 256; i++)
        making->tokenizer->bytes[i] = -1;
    return PERIDOT_OK;
}

static peridot_result check_pieces(struct tokenizer_making *making, uint32_t pieces,
                                   peridot_error *error) {
    const struct sentencepiece_model *model = &making->model;
    peridot_result result = PERIDOT_OK;
    for (; pieces-- && making->checked < model->count && !result; making->checked++)
        result = check_piece(making, making->checked, error);
    if (result || making->checked < model->count)
        return result;
    result = check_all(making, error);
    if (!result && !allocate(making->tokenizer, model->count, making->characters))
        result =
            fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s", making->name);
    return result;
}

static peridot_result finish(struct tokenizer_making *making, peridot_error *error) {
    const struct sentencepiece_model *model = &making->model;
    struct tokenizer *t = making->tokenizer;
    t->byte_fallback = model->byte_fallback;
    for (int i = 0; i < 256 && t->byte_fallback; i++)
        if (t->bytes[i] < 0)
            return fail(error, PERIDOT_ERROR_FORMAT, "%s: the piece for byte 0x%02X is missing",
                        making->name, (unsigned)i);
    if (!build_trie(t))
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while reading %s",
                    making->name);
    return find_specials(t, model, making->unknown, making->name, error);
}

peridot_result tokenizer_step(struct tokenizer_making *making, uint32_t pieces,
                              struct tokenizer **tokenizer, peridot_error *error) {
    const struct sentencepiece_model *model = &making->model;
    peridot_result result = PERIDOT_OK;
    if (!making->tokenizer->entries) {
        result = check_pieces(making, pieces, error);
        return result ? result : PERIDOT_NOT_READY;
    }
    for (; pieces-- && making->added < model->count && !result; making->added++)
        result =
            add_piece(making->tokenizer, model, making->added, &making->used, making->name, error);
    if (result || making->added < model->count)
        return result ? result : PERIDOT_NOT_READY;
    result = finish(making, error);
    if (result)
        return result;
    *tokenizer = making->tokenizer;
    making->tokenizer = NULL;
    return PERIDOT_OK;
}

void tokenizer_end(struct tokenizer_making *making) {
    if (making)
        tokenizer_destroy(making->tokenizer);
    free(making);
}

peridot_result tokenizer_create_pieces(const struct sentencepiece_model *model, const char *name,
                                       struct tokenizer **tokenizer, peridot_error *error) {
    struct tokenizer_making *making;
    *tokenizer = NULL;
    peridot_result result = tokenizer_begin(model, name, &making, error);
    if (!result)
        do
            result = tokenizer_step(making, UINT32_MAX, tokenizer, error);
        while (result == PERIDOT_NOT_READY);
    tokenizer_end(making);
    return result;
}

peridot_result tokenizer_create(const void *data, size_t size, const char *name,
                                struct tokenizer **tokenizer, peridot_error *error) {
    struct sentencepiece_model model;
    *tokenizer = NULL;
    peridot_result result = sentencepiece_parse(data, size, name, &model, error);
    if (result)
        return result;
    result = tokenizer_create_pieces(&model, name, tokenizer, error);
    sentencepiece_free(&model);
    return result;
}

void tokenizer_destroy(struct tokenizer *tokenizer) {
    if (!tokenizer)
        return;
    free(tokenizer->entries);
    free(tokenizer->texts);
    free(tokenizer->table);
    free(tokenizer->trie);
    free(tokenizer);
}

uint32_t tokenizer_vocabulary(const struct tokenizer *tokenizer) {
    return tokenizer->count;
}

struct tokenizer_specials tokenizer_specials(const struct tokenizer *tokenizer) {
    return tokenizer->specials;
}

/* ---- Encoding ---- */

/* A run of normalised text on its way to becoming one token. */
struct symbol {
    uint32_t begin, length; /* length 0: merged into its left neighbour */
    int32_t previous, next; /* -1: none */
    int32_t frozen;         /* the user-defined piece it is, or -1 */
};

struct candidate {
    float score;
    int32_t left, right;
    uint32_t length; /* of both together: another one means that a side has changed since */
};

struct encoder {
    const struct tokenizer *t;
    enum tokenizer_mode mode;
    char *text; /* normalised */
    size_t length;
    struct symbol *symbols;
    int32_t count;
    struct candidate *heap;
    size_t heap_count, heap_capacity;
    uint32_t *cuts; /* of each unused piece, where the last pair that made it met; NULL: none is */
};

/* Spaces become U+2581, bad bytes U+FFFD: at most three bytes for one. */
static bool normalise(struct encoder *e, const char *text, size_t length) {
    e->text = malloc(3 * length + 1);
    if (!e->text)
        return false;
    for (size_t i = 0; i < length;) {
        size_t size = utf8_sequence(text + i, length - i);
        const char *source = size ? text + i : "\xef\xbf\xbd";
        if (text[i] == ' ')
            source = SPACE;
        size_t bytes = size && text[i] != ' ' ? size : 3;
        memcpy(e->text + e->length, source, bytes);
        e->length += bytes;
        i += size ? size : 1;
    }
    return true;
}

/* The longest user-defined piece at a place, or -1. */
static int32_t match_defined(const struct encoder *e, size_t at, uint32_t *length) {
    const struct tokenizer *t = e->t;
    int32_t best = -1;
    uint32_t node = 0;
    for (size_t i = at; i < e->length; i++) {
        node = trie_child(t->trie, NULL, node, e->text[i], false);
        if (!node)
            break;
        int32_t id = t->trie[node].id;
        if (id >= 0 && !(e->mode == TOKENIZER_PLAIN && t->entries[id].reserved)) {
            best = id;
            *length = (uint32_t)(i + 1 - at);
        }
    }
    return best;
}

static bool split(struct encoder *e) {
    e->symbols = malloc((e->length + 1) * sizeof *e->symbols);
    if (!e->symbols)
        return false;
    for (size_t at = 0; at < e->length;) {
        struct symbol symbol = {
            .begin = (uint32_t)at, .previous = e->count - 1, .next = e->count + 1};
        symbol.frozen = match_defined(e, at, &symbol.length);
        if (symbol.frozen < 0)
            symbol.length = (uint32_t)utf8_sequence(e->text + at, e->length - at);
        e->symbols[e->count++] = symbol;
        at += symbol.length;
    }
    if (e->count)
        e->symbols[e->count - 1].next = -1;
    return true;
}

/* Higher scores first, then what stands further left. */
static bool before(const struct candidate *a, const struct candidate *b) {
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static bool heap_push(struct encoder *e, struct candidate candidate) {
    if (e->heap_count == e->heap_capacity) {
        size_t capacity = e->heap_capacity ? 2 * e->heap_capacity : 256;
        struct candidate *heap = realloc(e->heap, capacity * sizeof *heap);
        if (!heap)
            return false;
        e->heap = heap;
        e->heap_capacity = capacity;
    }
    size_t at = e->heap_count++;
    for (; at > 0 && before(&candidate, &e->heap[(at - 1) / 2]); at = (at - 1) / 2)
        e->heap[at] = e->heap[(at - 1) / 2];
    e->heap[at] = candidate;
    return true;
}

static struct candidate heap_pop(struct encoder *e) {
    struct candidate top = e->heap[0], last = e->heap[--e->heap_count];
    size_t at = 0;
    for (size_t child = 1; child < e->heap_count; child = 2 * at + 1) {
        if (child + 1 < e->heap_count && before(&e->heap[child + 1], &e->heap[child]))
            child++;
        if (!before(&e->heap[child], &last))
            break;
        e->heap[at] = e->heap[child];
        at = child;
    }
    e->heap[at] = last;
    return top;
}

/* Adds the pair to the candidates if together they are a piece. False without memory. */
static bool consider(struct encoder *e, int32_t left, int32_t right) {
    if (left < 0 || right < 0 || e->symbols[left].frozen >= 0 || e->symbols[right].frozen >= 0)
        return true;
    uint32_t length = e->symbols[left].length + e->symbols[right].length;
    int32_t id = find(e->t, e->text + e->symbols[left].begin, length);
    if (id < 0 || !is_text(&e->t->entries[id]) || e->t->entries[id].reserved)
        return true;
    if (e->t->entries[id].type == PIECE_UNUSED)
        e->cuts[id] = e->symbols[left].length;
    return heap_push(e, (struct candidate){e->t->entries[id].score, left, right, length});
}

static bool merge(struct encoder *e) {
    if (e->t->has_unused && !(e->cuts = calloc(e->t->count, sizeof *e->cuts)))
        return false;
    for (int32_t i = 1; i < e->count; i++)
        if (!consider(e, i - 1, i))
            return false;
    while (e->heap_count) {
        struct candidate top = heap_pop(e);
        struct symbol *left = &e->symbols[top.left], *right = &e->symbols[top.right];
        if (!left->length || !right->length || left->length + right->length != top.length)
            continue;
        left->length = top.length;
        right->length = 0;
        left->next = right->next;
        if (right->next >= 0)
            e->symbols[right->next].previous = top.left;
        if (!consider(e, left->previous, top.left) || !consider(e, top.left, left->next))
            return false;
    }
    return true;
}

/* Text that is no piece: its bytes, or one unknown token for a whole run. */
static bool put_unknown(const struct encoder *e, const char *text, size_t length, bool again,
                        struct token_list *list) {
    if (!e->t->byte_fallback)
        return again || token_list_add(list, e->t->specials.unk);
    for (size_t i = 0; i < length; i++)
        if (!token_list_add(list, e->t->bytes[(uint8_t)text[i]]))
            return false;
    return true;
}

/* An unused piece is taken apart again, as SentencePiece does it: where the pair met that was last
 * considered for that piece anywhere in the text. */
static bool put_text(const struct encoder *e, const char *text, size_t length, bool *unknown,
                     struct token_list *list) {
    int32_t id = find(e->t, text, length);
    if (id >= 0 && !is_text(&e->t->entries[id]))
        id = -1;
    if (id >= 0 && e->t->entries[id].type == PIECE_UNUSED && e->cuts[id]) {
        size_t cut = e->cuts[id];
        return put_text(e, text, cut, unknown, list) &&
               put_text(e, text + cut, length - cut, unknown, list);
    }
    bool again = *unknown;
    *unknown = id < 0;
    return id < 0 ? put_unknown(e, text, length, again, list) : token_list_add(list, id);
}

static bool put_all(const struct encoder *e, struct token_list *list) {
    bool unknown = false;
    for (int32_t i = e->count ? 0 : -1; i >= 0; i = e->symbols[i].next) {
        const struct symbol *symbol = &e->symbols[i];
        bool good = symbol->frozen >= 0
                        ? token_list_add(list, symbol->frozen)
                        : put_text(e, e->text + symbol->begin, symbol->length, &unknown, list);
        unknown = unknown && symbol->frozen < 0;
        if (!good)
            return false;
    }
    return true;
}

peridot_result tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                                enum tokenizer_mode mode, struct token_list *list,
                                peridot_error *error) {
    if (length > TEXT_LENGTH_MAX)
        return fail(error, PERIDOT_ERROR_ARGUMENT, "a text of %zu bytes is too long to tokenize",
                    length);
    struct encoder e = {.t = tokenizer, .mode = mode};
    size_t kept = list->count;
    bool good = normalise(&e, text, length) && split(&e) && merge(&e) && put_all(&e, list);
    free(e.text);
    free(e.symbols);
    free(e.heap);
    free(e.cuts);
    if (good)
        return PERIDOT_OK;
    list->count = kept;
    return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while tokenizing %zu bytes",
                length);
}

/* ---- Decoding ---- */

bool tokenizer_piece(const struct tokenizer *tokenizer, int32_t id, const char **bytes,
                     size_t *length) {
    if (id < 0 || (uint32_t)id >= tokenizer->count)
        return false;
    const struct entry *entry = &tokenizer->entries[id];
    *bytes = tokenizer->texts + entry->surface;
    *length = entry->surface_length;
    return true;
}

bool tokenizer_writes(const struct tokenizer *tokenizer, int32_t id) {
    if (id < 0 || (uint32_t)id >= tokenizer->count)
        return false;
    const struct entry *entry = &tokenizer->entries[id];
    const struct piece piece = {.text = tokenizer->texts + entry->text, .length = entry->length};
    return (entry->type == PIECE_NORMAL || entry->type == PIECE_USER_DEFINED ||
            entry->type == PIECE_BYTE) &&
           !tokenizer_is_reserved(&piece);
}

/* Writes the text of ids that are in range. Byte pieces in a row make characters together; any
 * other piece ends the row, even one without a text. */
static size_t write_decoded(const struct tokenizer *t, const int32_t *ids, size_t count,
                            char *out) {
    struct utf8_stream row = {0};
    size_t written = 0;
    for (size_t i = 0; i < count; i++) {
        const struct entry *entry = &t->entries[ids[i]];
        const char *surface = t->texts + entry->surface;
        if (entry->type == PIECE_BYTE) {
            written += utf8_stream_push(&row, surface, 1, out + written);
        } else {
            written += utf8_stream_flush(&row, out + written);
            memcpy(out + written, surface, entry->surface_length);
            written += entry->surface_length;
        }
    }
    return written + utf8_stream_flush(&row, out + written);
}

peridot_result tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count,
                                char **text, size_t *length, peridot_error *error) {
    *text = NULL;
    *length = 0;
    size_t room = 16;
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= tokenizer->count)
            return fail(error, PERIDOT_ERROR_ARGUMENT, "token %zu is %d; there are %u tokens", i,
                        ids[i], tokenizer->count);
        uint32_t size = tokenizer->entries[ids[i]].surface_length;
        room += size < 3 ? 3 : size; /* a bad byte becomes the three of U+FFFD */
    }
    char *out = malloc(room);
    if (!out)
        return fail(error, PERIDOT_ERROR_HOST_MEMORY, "out of memory while decoding %zu tokens",
                    count);
    *length = write_decoded(tokenizer, ids, count, out);
    out[*length] = '\0';
    *text = out;
    return PERIDOT_OK;
}
