/** Words the random models have tokens for, as they stand at the beginning of a text. */
export const WORDS: readonly string[] = [
  ..."hello world the and for you are is a question answer name type city weather Paris London".split(" "),
  ..."function return const let import export from class async await true false null".split(" "),
  ..."tool result user assistant system get_weather".split(" "),
];
