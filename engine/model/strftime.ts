/** Python's strftime for templates that ask for the date: the date is given, the language is English, and there is no time zone. */
const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December'];
const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const FORM = /^(\d{4})-(\d{2})-(\d{2})(?:T(\d{2}):(\d{2})(?::(\d{2}))?)?$/;

/** `2024-07-26` or `2024-07-26T14:30:05`; null if it is not one. */
export function parseDate(text: string): Date | null {
  const parts = FORM.exec(text)?.slice(1).map((part) => Number(part ?? 0));
  if (parts === undefined) return null;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = parts;
  const date = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
  if (year < 100 || second > 59 || minute > 59 || hour > 23 || date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day) return null;
  return date;
}

/**
 * @example strftime(parseDate('2024-07-26'), '%d %B %Y'); // 26 July 2024
 * @throws Error for a directive that has no meaning without a locale or a time zone.
 */
export function strftime(date: Date, format: string): string {
  return format.replace(/%(-?)(.|$)/gsu, (_, flag: string, letter: string) => {
    const text = directive(date, letter);
    if (text === null) throw new Error(`strftime_now knows no %${flag}${letter}`);
    return flag === '-' ? text.replace(/^[0 ]+(?=\d)/, '') : text;
  });
}

function directive(date: Date, letter: string): string | null {
  const two = (value: number, fill = '0') => String(value).padStart(2, fill);
  const month = MONTHS[date.getUTCMonth()] ?? '';
  const day = DAYS[date.getUTCDay()] ?? '';
  const hour = date.getUTCHours();
  switch (letter) {
    case 'Y': return String(date.getUTCFullYear()).padStart(4, '0');
    case 'y': return two(date.getUTCFullYear() % 100);
    case 'm': return two(date.getUTCMonth() + 1);
    case 'd': return two(date.getUTCDate());
    case 'e': return two(date.getUTCDate(), ' ');
    case 'B': return month;
    case 'b':
    case 'h': return month.slice(0, 3);
    case 'A': return day;
    case 'a': return day.slice(0, 3);
    case 'w': return String(date.getUTCDay());
    case 'u': return String(date.getUTCDay() || 7);
    case 'j': return String((Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate()) - Date.UTC(date.getUTCFullYear(), 0, 1)) / 86_400_000 + 1).padStart(3, '0');
    case 'H': return two(hour);
    case 'I': return two(hour % 12 || 12);
    case 'p': return hour < 12 ? 'AM' : 'PM';
    case 'M': return two(date.getUTCMinutes());
    case 'S': return two(date.getUTCSeconds());
    case 'F': return strftime(date, '%Y-%m-%d');
    case 'T': return strftime(date, '%H:%M:%S');
    case '%': return '%';
    default: return null;
  }
}
