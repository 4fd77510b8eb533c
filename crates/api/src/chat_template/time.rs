//! `strftime_now`, for templates that state the date.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Error, ErrorKind};

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A day of the Gregorian calendar.
struct Date {
    year: u64,
    /// 1 to 12.
    month: u64,
    /// 1 to 31.
    day: u64,
    /// 1 to 366.
    of_year: u64,
}

/// Days since 1970 as a date. Years are counted from March, so that the leap day comes last;
/// March 1 of the year 0 is 719,468 days before 1970, and 400 years have 146,097 days.
fn date(days: u64) -> Date {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let from_march = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * from_march + 2) / 153;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    Date {
        year,
        month,
        day: from_march - (153 * month_from_march + 2) / 5 + 1,
        of_year: if month <= 2 {
            from_march - 305
        } else {
            from_march + 60 + u64::from(leap)
        },
    }
}

/// Python's `datetime.strftime` in UTC, without the codes that depend on a locale or a zone.
/// A `-` after the `%` drops leading zeros, as in the C library.
pub(super) fn strftime(now: SystemTime, format: &str) -> Result<String, Error> {
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let days = seconds / 86_400;
    let date = date(days);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let weekday = DAYS[((days + 4) % 7) as usize];
    let month = MONTHS[(date.month - 1) as usize];

    let mut result = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            result.push(c);
            continue;
        }
        let mut code = rest.next();
        let bare = code == Some('-');
        if bare {
            code = rest.next();
        }
        let number = |value: u64, width: usize| {
            let width = if bare { 0 } else { width };
            format!("{value:0width$}")
        };
        let piece = match code {
            Some('Y') => date.year.to_string(),
            Some('y') => number(date.year % 100, 2),
            Some('m') => number(date.month, 2),
            Some('d') => number(date.day, 2),
            Some('e') => format!("{:2}", date.day),
            Some('j') => number(date.of_year, 3),
            Some('H') => number(hour, 2),
            Some('I') => number((hour + 11) % 12 + 1, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('B') => month.to_owned(),
            Some('b') => month[..3].to_owned(),
            Some('F') => format!("{}-{:02}-{:02}", date.year, date.month, date.day),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('%') => "%".to_owned(),
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now: unknown code in '{format}'"),
                ));
            }
        };
        result.push_str(&piece);
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::strftime;

    /// Expected values: `datetime.fromtimestamp(t, timezone.utc).strftime(…)`.
    #[test]
    fn strftime_is_python_strftime() {
        const ALL: &str = "%Y %y %m %d %-d %e %j %H %I %M %S %p %A %a %B %b %F %T %%";
        for (seconds, expected) in [
            (
                0,
                "1970 70 01 01 1  1 001 00 12 00 00 AM Thursday Thu January Jan 1970-01-01 00:00:00 %",
            ),
            (
                951_782_399,
                "2000 00 02 28 28 28 059 23 11 59 59 PM Monday Mon February Feb 2000-02-28 23:59:59 %",
            ),
            (
                951_782_400,
                "2000 00 02 29 29 29 060 00 12 00 00 AM Tuesday Tue February Feb 2000-02-29 00:00:00 %",
            ),
            (
                951_868_800,
                "2000 00 03 01 1  1 061 00 12 00 00 AM Wednesday Wed March Mar 2000-03-01 00:00:00 %",
            ),
            (
                1_072_915_199,
                "2003 03 12 31 31 31 365 23 11 59 59 PM Wednesday Wed December Dec 2003-12-31 23:59:59 %",
            ),
            (
                1_735_689_599,
                "2024 24 12 31 31 31 366 23 11 59 59 PM Tuesday Tue December Dec 2024-12-31 23:59:59 %",
            ),
            (
                1_735_689_600,
                "2025 25 01 01 1  1 001 00 12 00 00 AM Wednesday Wed January Jan 2025-01-01 00:00:00 %",
            ),
            (
                1_741_262_716,
                "2025 25 03 06 6  6 065 12 12 05 16 PM Thursday Thu March Mar 2025-03-06 12:05:16 %",
            ),
            (
                4_107_542_400,
                "2100 00 03 01 1  1 060 00 12 00 00 AM Monday Mon March Mar 2100-03-01 00:00:00 %",
            ),
            (
                4_107_542_399,
                "2100 00 02 28 28 28 059 23 11 59 59 PM Sunday Sun February Feb 2100-02-28 23:59:59 %",
            ),
            (
                13_569_465_600,
                "2400 00 01 01 1  1 001 00 12 00 00 AM Saturday Sat January Jan 2400-01-01 00:00:00 %",
            ),
        ] {
            let now = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(strftime(now, ALL).unwrap(), expected, "{seconds}");
        }
        assert!(strftime(UNIX_EPOCH, "%Q").is_err());
        assert!(strftime(UNIX_EPOCH, "%").is_err());
    }
}
