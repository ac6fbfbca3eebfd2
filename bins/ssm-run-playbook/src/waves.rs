//! `--batch` and `--max-errors`: which hosts run together, and how many of them may fail.

use std::str::FromStr;

/// A number, or a percentage of some hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(usize),
    /// So many of a hundred.
    Percent(usize),
}

impl Amount {
    /// Of `hosts`, rounded down.
    pub(crate) fn of(self, hosts: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => hosts * percent / 100,
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither a number nor a percentage up to 100%");
        let number = |text: &str| {
            let digits =
                !text.is_empty() && text.len() <= 6 && text.bytes().all(|c| c.is_ascii_digit());
            text.parse::<usize>().ok().filter(|_| digits).ok_or_else(wrong)
        };
        match text.trim().strip_suffix('%') {
            Some(percent) => {
                number(percent).ok().filter(|n| *n <= 100).map(Self::Percent).ok_or_else(wrong)
            }
            None => number(text.trim()).map(Self::Count),
        }
    }
}

/// Sizes of waves, comma-separated; the last one repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batches(Vec<Amount>);

impl FromStr for Batches {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sizes: Vec<Amount> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        if sizes.contains(&Amount::Count(0)) || sizes.contains(&Amount::Percent(0)) {
            return Err("a batch has at least one host".to_owned());
        }
        Ok(Self(sizes))
    }
}

impl Batches {
    /// How many hosts each wave has; at least one, as with Ansible's `serial`.
    pub(crate) fn sizes(&self, hosts: usize) -> Vec<usize> {
        let mut wanted = self.0.iter();
        let mut last = Amount::Percent(100);
        let (mut left, mut sizes) = (hosts, Vec::new());
        while left > 0 {
            last = wanted.next().copied().unwrap_or(last);
            let size = last.of(hosts).clamp(1, left);
            sizes.push(size);
            left -= size;
        }
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_cover_all_hosts_and_the_last_size_repeats() {
        let check = |text: &str, hosts: usize, expected: &[usize]| {
            assert_eq!(
                text.parse::<Batches>().unwrap().sizes(hosts),
                expected,
                "{text} of {hosts}"
            );
        };
        check("1,25%,100%", 10, &[1, 2, 7]);
        check("1,25%,100%", 1, &[1]);
        check("2", 5, &[2, 2, 1]);
        check("10%", 4, &[1, 1, 1, 1]);
        check("30", 4, &[4]);
        check("1, 50%", 5, &[1, 2, 2]);
        for bad in ["", "0", "0%", "101%", "x", "1,,2", "-1", "+1", "1.5", "%"] {
            assert!(bad.parse::<Batches>().is_err(), "{bad}");
        }
        assert_eq!("25%".parse::<Amount>().unwrap().of(10), 2);
        assert_eq!("0".parse::<Amount>(), Ok(Amount::Count(0)));
    }
}
