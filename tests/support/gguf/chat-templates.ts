/** Chat templates in Jinja, as models carry them. */

/** Every message between its marks, and nothing else: no tools. */
export const chatMl = [
  "{%- for message in messages %}",
  "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}",
  "{%- endfor %}",
  "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
].join("");

const SYSTEM = [
  "{%- if tools %}",
  "{{- '<|im_start|>system\\n' }}",
  "{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] + '\\n\\n' }}{%- endif %}",
  "{{- '# Tools\\n\\n<tools>' }}",
  "{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}",
  "{{- '\\n</tools>\\n\\nTo call one, reply with <tool_call>\\n' }}",
  '{{- \'{"name": <name>, "arguments": <json>}\\n</tool_call><|im_end|>\\n\' }}',
  "{%- elif messages[0]['role'] == 'system' %}",
  "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}",
  "{%- endif %}",
];

const TOOL_CALLS = [
  "{{- '<|im_start|>assistant' }}",
  "{%- if message['content'] %}{{- '\\n' + message['content'] }}{%- endif %}",
  "{%- for call in message['tool_calls'] %}",
  "{{- '\\n<tool_call>\\n{\"name\": \"' + call['function']['name'] }}",
  "{{- '\", \"arguments\": ' + (call['function']['arguments'] | tojson) + '}\\n</tool_call>' }}",
  "{%- endfor %}",
  "{{- '<|im_end|>\\n' }}",
];

/** With tools, their calls and results, in the form the Qwen models made common. */
export const chatMlWithTools = [
  ...SYSTEM,
  "{%- for message in messages %}",
  "{%- if message['role'] == 'user' or (message['role'] == 'assistant' and not message['tool_calls']) %}",
  "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}",
  "{%- elif message['role'] == 'assistant' %}",
  ...TOOL_CALLS,
  "{%- elif message['role'] == 'tool' %}",
  "{{- '<|im_start|>user\\n<tool_response>\\n' + message['content'] }}",
  "{{- '\\n</tool_response><|im_end|>\\n' }}",
  "{%- endif %}",
  "{%- endfor %}",
  "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
].join("");
