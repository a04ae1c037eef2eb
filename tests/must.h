#ifndef TESTS_MUST_H
#define TESTS_MUST_H

/* A call with `&error` as its last argument that must succeed; says what went wrong. Needs
 * cmocka.h. */
#define MUST(call)                                                                                 \
    do {                                                                                           \
        peridot_error error = {0};                                                                 \
        if ((call) != PERIDOT_OK)                                                                  \
            fail_msg("%s", error.message);                                                         \
    } while (0)

#endif
