/* The demo model's files as bytes of the program. DEMO_* are paths given by the build. */
    .section .rodata
    .global demo_config, demo_config_end, demo_weights, demo_weights_end
    .global demo_tokenizer, demo_tokenizer_end
    .balign 64
demo_weights:
    .incbin DEMO_WEIGHTS
demo_weights_end:
demo_config:
    .incbin DEMO_CONFIG
demo_config_end:
demo_tokenizer:
    .incbin DEMO_TOKENIZER
demo_tokenizer_end:
    .byte 0
    .section .note.GNU-stack, "", %progbits
