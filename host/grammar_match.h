/* Matching a text with a grammar, byte by byte: a state is the set of all stacks that what was read
 * so far can have led to. States are numbers, and where a state goes with a byte is kept, so that a
 * byte read again costs one look into a table. */
#ifndef HOST_GRAMMAR_MATCH_H
#define HOST_GRAMMAR_MATCH_H

#include "grammar.h"

/* Bounds, so that no grammar takes all memory. */
#define MATCH_STATES_MAX (1u << 17)
#define MATCH_TABLE_MAX (1u << 24)   /* entries of the table of transitions */
#define MATCH_CONFIGS_MAX (1u << 15) /* places at once, of one state with all that it passes */
#define MATCH_STORED_MAX (1u << 21)  /* places of all states */
#define MATCH_FRAMES_MAX (1u << 18)
#define MATCH_DEPTH_MAX 8192 /* rules within rules: what would go deeper is no match */

#define MATCH_FAILED 0 /* over a bound: grammar_match_error */
#define MATCH_DEAD 1   /* nothing can follow, nor may the text end */

struct grammar_match;

/* The grammar outlives it. Errors: HOST_MEMORY, UNSUPPORTED (over a bound). */
peridot_result grammar_match_create(const struct peridot_grammar *grammar,
                                    struct grammar_match **match, peridot_error *error);
void grammar_match_destroy(struct grammar_match *match); /* accepts NULL */

/* Nothing read. States are good until grammar_match_reset. */
uint32_t grammar_match_start(const struct grammar_match *match);
uint32_t grammar_match_step(struct grammar_match *match, uint32_t state, uint8_t byte);
/* Whether the text may end here. */
bool grammar_match_accepts(const struct grammar_match *match, uint32_t state);
/* After MATCH_FAILED, of any step. Errors: HOST_MEMORY, UNSUPPORTED. */
peridot_result grammar_match_error(const struct grammar_match *match, peridot_error *error);

/* Whether so many states are known that they should be forgotten before the next token. */
bool grammar_match_is_crowded(const struct grammar_match *match);
/* Forgets all states; failed matches can be tried again. */
peridot_result grammar_match_reset(struct grammar_match *match, peridot_error *error);

#endif
