/* The game's, where Peridot has one too. */
#define QUEUE_OF_THE_GAME 0
