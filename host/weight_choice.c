#include "weight_choice.h"
#include "caller_struct.h"
#include "memory_plan.h"

#include <stdio.h>

/* Best first. Below four bits answers suffer, so a context of CONTEXT_LEAST comes before that. */
static const peridot_weights good[] = {PERIDOT_WEIGHTS_FILE, PERIDOT_WEIGHTS_Q8_0,
                                       PERIDOT_WEIGHTS_Q6_K, PERIDOT_WEIGHTS_Q5_K,
                                       PERIDOT_WEIGHTS_Q4_K};
static const peridot_weights poor[] = {PERIDOT_WEIGHTS_Q3_K, PERIDOT_WEIGHTS_Q2_K};
#define COUNT(list) (uint32_t)(sizeof(list) / sizeof *(list))
#define CONTEXT_LEAST 1024

struct choice {
    struct peridot_model *model;
    const struct checkpoint *checkpoint;
    peridot_model_params params;
    peridot_session_params session;
    uint64_t file_bytes; /* of the file's own types, planned; 0: not known yet */
    bool found;
};

/* The first of a list that fits beside a session of `context`. It stays planned. */
static peridot_result choose(struct choice *choice, const peridot_weights *list, uint32_t count,
                             uint32_t context, peridot_error *error) {
    peridot_result result = PERIDOT_OK;
    for (uint32_t i = 0; i < count && !choice->found && !result; i++) {
        choice->params.weights = list[i];
        result = model_plan_weights(choice->model, choice->checkpoint, &choice->params,
                                    &choice->session, context, error);
        if (result)
            break;
        uint64_t bytes = 0;
        for (const struct peridot_model *part = choice->model; part; part = model_next(part))
            bytes += arena_bytes(part->arena);
        if (list[i] == PERIDOT_WEIGHTS_FILE)
            choice->file_bytes = bytes;
        else if (choice->file_bytes && bytes >= choice->file_bytes)
            continue; /* worse, and no smaller */
        result = memory_plan_fits(choice->model, &choice->session, context, &choice->found, error);
    }
    return result;
}

/* With the context that is asked for, else with the largest beside which one of the list fits. */
static peridot_result choose_from(struct choice *choice, const peridot_weights *list,
                                  uint32_t count, peridot_error *error) {
    uint32_t asked = choice->session.context,
             context = asked ? asked : choice->model->config.context;
    peridot_result result = PERIDOT_OK;
    while (!choice->found && !result) {
        result = choose(choice, list, count, context, error);
        if (asked || context / 2 < CONTEXT_LEAST)
            break;
        context /= 2;
    }
    return result;
}

static peridot_result choose_all(struct choice *choice, peridot_error *error) {
    peridot_result result = choose_from(choice, good, COUNT(good), error);
    return result || choice->found ? result : choose_from(choice, poor, COUNT(poor), error);
}

static peridot_result begin(struct choice *choice, struct peridot_model *model,
                            const struct checkpoint *checkpoint, const peridot_model_params *params,
                            peridot_error *error) {
    *choice = (struct choice){.model = model, .checkpoint = checkpoint, .params = *params};
    return caller_struct_read(&choice->session, sizeof choice->session, params->session,
                              "peridot_session_params", error);
}

peridot_result weight_choice_settle(struct peridot_model *model,
                                    const struct checkpoint *checkpoint,
                                    peridot_model_params *params, peridot_error *error) {
    struct choice choice;
    const peridot_weights given = params->weights;
    peridot_result result = begin(&choice, model, checkpoint, params, error);
    if (!result && given == PERIDOT_WEIGHTS_AUTO)
        result = choose_all(&choice, error);
    else if (!result && model->next) /* how layers are split depends on the context that fits */
        result = choose_from(&choice, &given, 1, error);
    if (given == PERIDOT_WEIGHTS_AUTO) {
        params->weights = choice.found ? choice.params.weights : PERIDOT_WEIGHTS_FILE;
        model->weights_chosen = params->weights != PERIDOT_WEIGHTS_FILE;
    }
    /* weights at least, where no context worth having fits */
    uint32_t context = choice.session.context ? choice.session.context : 1;
    if (!result && !choice.found)
        result = model_plan_weights(model, checkpoint, params, &choice.session, context, error);
    return result;
}

/* As --weights takes it. */
static const char *named(const struct choice *choice) {
    peridot_weights weights = choice->params.weights;
    return weights == PERIDOT_WEIGHTS_FILE
               ? "file"
               : weight_type_info((enum weight_type)(weights - 1))->name;
}

peridot_result weight_choice_refuse(struct peridot_model *model,
                                    const struct checkpoint *checkpoint,
                                    const peridot_model_params *params,
                                    const struct shortage *shortage, peridot_error *error) {
    struct choice choice;
    char advice[80] = "this model does not fit there, not even as q2_k";
    peridot_result result = begin(&choice, model, checkpoint, params, error);
    if (!result)
        result = choose_all(&choice, error);
    uint32_t context = 0; /* what would fit instead of the one asked for */
    if (!result && !choice.found && choice.session.context) {
        choice.session.context = 0;
        result = choose_all(&choice, error);
        if (!result && choice.found)
            result = memory_plan_default_context(model, &choice.session, &context, error);
    }
    if (result)
        return result;
    if (context)
        snprintf(advice, sizeof advice, "--weights %s --context %u would fit", named(&choice),
                 context);
    else if (choice.found && choice.params.weights == PERIDOT_WEIGHTS_FILE)
        snprintf(advice, sizeof advice, "as the file has them (--weights file) they would fit");
    else if (choice.found)
        snprintf(advice, sizeof advice, "--weights %s would fit", named(&choice));
    else if (params->split)
        snprintf(advice, sizeof advice, "give that device a smaller share, or leave --split out");
    return memory_plan_refuse_weights(shortage, advice, error);
}
