// The inputs of an example, to be changed without code.
import type { ChoiceInput, Description, Given, Input, MatrixInput, NumberInput } from './api.ts';

interface Props<I> {
  readonly name: string;
  readonly input: I;
  readonly value: Given[string];
  readonly onChange: (value: Given[string]) => void;
}

interface FormProps {
  readonly example: Description;
  readonly given: Given;
  readonly onChange: (given: Given) => void;
}

export function Inputs({ example, given, onChange }: FormProps) {
  const shown = Object.entries(example.inputs).filter(([name]) => name !== example.trains);
  return (
    <form class="inputs" onSubmit={(event) => event.preventDefault()}>
      {shown.map(([name, input]) => (
        <Field
          key={name}
          name={name}
          input={input}
          value={given[name]!}
          onChange={(value) => onChange({ ...given, [name]: value })}
        />
      ))}
    </form>
  );
}

function Field({ input, ...props }: Props<Input>) {
  if (input.kind === 'choice') return <Choice input={input} {...props} />;
  if (input.kind === 'matrix') return <MatrixField input={input} {...props} />;
  return (
    <div class="field">
      <label for={`input-${props.name}`}>{input.label}</label>
      <NumberBox id={`input-${props.name}`} input={input} value={props.value as number} onChange={props.onChange} />
    </div>
  );
}

const Choice = ({ input, value, onChange }: Props<ChoiceInput>) => (
  <label class="field">
    <span>{input.label}</span>
    <select value={value as string} onChange={(event) => onChange(event.currentTarget.value)}>
      {input.options.map((option) => (
        <option value={option}>{option}</option>
      ))}
    </select>
  </label>
);

/** Few cells are shown at once, many when asked for. */
const MANY = 8;

function MatrixField({ name, input, value, onChange }: Props<MatrixInput>) {
  const rows = value as readonly (readonly number[])[];
  const table = (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls
    <section class="scroll" tabIndex={0} aria-label={`${name}, its cells`}>
      <table class="cells">
        <tbody>
          {rows.map((row, i) => (
            <tr>
              {row.map((cell, j) => (
                <td>
                  <NumberBox
                    label={`${name}, row ${i + 1}, column ${j + 1}`}
                    input={{ min: -Number.MAX_VALUE, max: Number.MAX_VALUE, whole: false }}
                    digits={4}
                    value={cell}
                    onChange={(changed) =>
                      onChange(rows.map((r, k) => (k === i ? r.map((c, l) => (l === j ? changed : c)) : r)))
                    }
                  />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
  const title = (
    <>
      {input.label} <span class="soft mono">{`${rows.length} × ${rows[0]!.length}`}</span>
    </>
  );
  return rows.length * rows[0]!.length > MANY ? (
    <details class="matrix-field">
      <summary>{title}</summary>
      {table}
    </details>
  ) : (
    <fieldset class="matrix-field">
      <legend>{title}</legend>
      {table}
    </fieldset>
  );
}

interface BoxProps {
  readonly id?: string;
  readonly label?: string;
  readonly input: Pick<NumberInput, 'min' | 'max' | 'whole'>;
  /** How many are shown; all of them are kept until it is changed. */
  readonly digits?: number;
  readonly value: number;
  readonly onChange: (value: number) => void;
}

/** Passes on numbers only; what is not one yet, such as a lone minus, stays in the box. */
const NumberBox = ({ id, label, input, digits, value, onChange }: BoxProps) => (
  <input
    id={id}
    class="mono"
    type="number"
    aria-label={label}
    step={input.whole ? 1 : 'any'}
    min={input.min > -Number.MAX_VALUE ? input.min : undefined}
    max={input.max < Number.MAX_VALUE ? input.max : undefined}
    defaultValue={String(digits === undefined ? value : Number(value.toPrecision(digits)))}
    onInput={(event) => {
      const box = event.currentTarget;
      if (box.value !== '' && box.validity.valid) onChange(box.valueAsNumber);
    }}
  />
);
