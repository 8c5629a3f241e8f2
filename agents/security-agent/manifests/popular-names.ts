import { type Issue, shortened } from "./scanner.ts";

/** Names that misspelt ones are made after; close ones that are themselves well known stand here as well. */
const NPM =
  "angular async axios babel-cli bcrypt bluebird body-parser chalk chokidar classnames color colors commander " +
  "cookie-parser cors cross-env date-fns debug discord.js dotenv electron esbuild eslint ethers express fastify " +
  "formidable glob graphql handlebars helmet inquirer jquery jsonwebtoken lodash lodash-es mocha moment mongodb " +
  "mongoose mysql mysql2 next nodemailer nodemon passport playwright postcss preact prettier puppeteer react react-dom " +
  "redis redux request requests rimraf rollup semver sequelize sharp socket.io svelte tailwindcss ts-node typescript " +
  "underscore undici uuid vitest webpack winston yargs";
const PYPI =
  "aiohttp asyncio attrs beautifulsoup4 black boto3 botocore celery certifi cffi click colorama coloredlogs cryptography " +
  "django docker fastapi flake8 flask grpcio gunicorn httpx idna jinja2 jsonschema keras matplotlib mypy networkx nltk " +
  "numpy opencv-python openai pandas paramiko pillow psutil psycopg psycopg2 pyarrow pydantic pygments pyjwt pylint " +
  "pymongo pymysql pytest python-dateutil pytz pyyaml redis request requests rich scikit-learn scipy selenium " +
  "setuptools sphinx sqlalchemy tensorflow torch tornado tqdm transformers urllib3 uvicorn virtualenv werkzeug wheel";
/** Shorter names are all close to each other. */
const SHORTEST = 5;

const POPULAR = { npm: NPM.split(" "), pypi: PYPI.split(" ") } as const;

/** What is to be said of a name that is no popular one but close to one. */
export function nameIssue(name: string, where: keyof typeof POPULAR): Issue | undefined {
  const meant = misspelt(name, where);
  if (meant === undefined) return undefined;
  return {
    severity: "high",
    cwe: "CWE-1357",
    title: `\`${shortened(name)}\` may be a misspelling of \`${meant}\``,
    detail: "Packages named one letter beside popular ones are a known way to bring in foreign code.",
    fix: `Make sure that \`${shortened(name)}\` is meant, and not \`${meant}\`.`,
  };
}

/** The popular name that this one is one slip of the fingers away from, if it is no popular name itself. */
function misspelt(name: string, where: keyof typeof POPULAR): string | undefined {
  const plain = name.toLowerCase().replaceAll("_", "-");
  const popular = POPULAR[where];
  if (plain.length < SHORTEST || popular.includes(plain)) return undefined;
  return popular.find((known) => known.length >= SHORTEST && oneSlip(plain, known));
}

/** One letter more, less, other, or two neighbours swapped. */
function oneSlip(a: string, b: string): boolean {
  if (Math.abs(a.length - b.length) > 1 || a === b) return false;
  let start = 0;
  while (start < a.length && a[start] === b[start]) start += 1;
  const restA = a.slice(start);
  const restB = b.slice(start);
  const swapped = restA.slice(0, 2) === [...restB.slice(0, 2)].reverse().join("");
  return (
    restA.slice(1) === restB ||
    restA === restB.slice(1) ||
    restA.slice(1) === restB.slice(1) ||
    (swapped && restA.slice(2) === restB.slice(2))
  );
}
